"""A process that dispatches, to be killed or frozen: ``python -m tests.support.dispatching URL STAGE``.

STAGE is where it stops for good, saying so on stdout: ``before-commit`` holds the dispatch lock with its placements
not yet committed, ``before-send`` has committed and not sent.
"""

import sys
import threading

from stoker.jobs.attempts import Outgoing
from stoker.jobs.database import connect, sessions
from stoker.jobs.dispatch import dispatch
from stoker.jobs.dispatcher import Dispatcher
from stoker.settings import Settings

BEFORE_COMMIT, BEFORE_SEND = "before-commit", "before-send"


def stay() -> None:
    """Say that the stage is reached, and stay there."""
    sys.stdout.write("reached\n")
    sys.stdout.flush()
    threading.Event().wait()


def main(url: str, stage: str) -> None:
    """Dispatch up to the stage."""
    engine = connect(url)
    if stage == BEFORE_COMMIT:
        with sessions(engine)() as session:
            dispatch(session)
            stay()

    def never(_: Outgoing) -> None:
        stay()

    Dispatcher(engine, never, Settings(dispatch_seconds=0.1)).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
