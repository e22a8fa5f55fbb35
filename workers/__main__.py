"""``python -m stoker.workers``: one worker, until SIGTERM."""

import os
import signal
import sys
from typing import NoReturn

from stoker import log
from stoker.errors import InvalidInput, StokerError
from stoker.jobs.fleet import NameTaken
from stoker.settings import load
from stoker.workers.worker import Worker


def main() -> int:
    """Run a worker; returns the exit code: 0 stopped as asked, 1 failed, 2 settings or name cannot be used."""
    signal.signal(signal.SIGTERM, _leave)  # until Celery takes over
    try:
        settings = load(os.environ)
        log.configure(settings.log_level)
        Worker(settings, os.environ).serve()
    except (InvalidInput, NameTaken) as error:
        return _say(error, 2)
    except StokerError as error:
        return _say(error, 1)
    return 0


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def _say(error: StokerError, code: int) -> int:
    sys.stderr.write(log.redact(f"stoker worker: {error}\n"))
    return code


if __name__ == "__main__":
    sys.exit(main())
