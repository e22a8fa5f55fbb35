"""One worker as a program, until SIGTERM."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from stoker import log
from stoker.errors import ConfinementUnavailable, InvalidInput, OtherSchema, StokerError, Unavailable
from stoker.jobs.fleet import NameTaken
from stoker.settings import Settings, load
from stoker.workers.worker import Worker


def main(make: Callable[[Settings, Mapping[str, str]], Worker] = Worker) -> int:
    """Run a worker; its exit code: 0 as asked, 1 failed, 2 settings, name, database or kernel cannot be used."""
    signal.signal(signal.SIGTERM, _leave)  # until Celery takes over
    try:
        settings = load(os.environ)
        log.configure(settings.log_level)
        make(settings, os.environ).serve()
    except (InvalidInput, NameTaken, ConfinementUnavailable, OtherSchema, Unavailable) as error:
        return _say(error, 2)
    except StokerError as error:
        return _say(error, 1)
    return 0


def _leave(*_: object) -> NoReturn:
    raise SystemExit(0)


def _say(error: StokerError, code: int) -> int:
    sys.stderr.write(log.redact(f"stoker worker: {error}\n"))
    return code
