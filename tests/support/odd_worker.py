"""A real worker whose trainers misbehave: ``python -m tests.support.odd_worker``. It starts in half a second.

It tests devices that are out of use ten times a second.
"""

import sys
from collections.abc import Mapping

from stoker.settings import Settings
from stoker.workers.program import main
from stoker.workers.worker import Worker

COMMAND = (sys.executable, "-m", "tests.support.odd_trainers")


def odd(settings: Settings, environ: Mapping[str, str]) -> Worker:
    """The worker as it is, with another fork server."""
    return Worker(settings, environ, COMMAND, self_test_seconds=0.1)


if __name__ == "__main__":
    sys.exit(main(odd))
