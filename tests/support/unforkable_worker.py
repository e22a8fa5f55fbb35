"""A worker on whose machine forked children cannot train: ``python -m tests.support.unforkable_worker``."""

import sys
from collections.abc import Mapping

from stoker.settings import Settings
from stoker.workers.program import main
from stoker.workers.worker import Worker
from tests.support.odd_worker import COMMAND


def unforkable(settings: Settings, environ: Mapping[str, str]) -> Worker:
    """Make it."""
    return Worker(settings, environ, (*COMMAND, "--canary-fails"))


if __name__ == "__main__":
    sys.exit(main(unforkable))
