"""How a worker stops: its runs hand in checkpoints and end, before Celery's pool waits for their threads."""

import signal
from typing import Any

from celery import bootsteps

from stoker.log import Events
from stoker.workers.membership import Membership
from stoker.workers.runs import Runs

events = Events(__name__)


def stop_step(runs: Runs, membership: Membership, patience_seconds: float) -> type:
    """A bootstep that asks all runs to stop when Celery stops, by SIGTERM or by Flower's shutdown alike."""

    class Drain(bootsteps.StartStopStep):
        """Runs before the pool waits for its threads."""

        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:
            """Take over SIGHUP, at which Celery would start itself anew beside our fork server."""
            del worker
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        def close(self, worker: Any) -> None:
            """Ask for checkpoints and ends."""
            del worker
            events.info("worker_stopping", runs=len(runs.all()))
            membership.step_back()
            runs.stop(patience_seconds)

        def stop(self, worker: Any) -> None:
            """Nothing: the pool waits for the runs."""

    return Drain
