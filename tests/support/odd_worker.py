"""A real worker whose trainers misbehave: ``python -m tests.support.odd_worker``. It starts in half a second."""

import os
import sys

from stoker.workers import __main__ as program
from stoker.workers import worker

COMMAND = (sys.executable, "-m", "tests.support.odd_trainers")


class OddWorker(worker.Worker):
    """The worker as it is, with another fork server."""

    def __init__(self, settings: worker.Settings, environ: dict[str, str]) -> None:
        """Start ``tests.support.odd_trainers``."""
        super().__init__(settings, environ, COMMAND)


if __name__ == "__main__":
    os.environ.setdefault("STOKER_LOG_LEVEL", "info")
    program.Worker = OddWorker  # type: ignore[misc, assignment]
    sys.exit(program.main())
