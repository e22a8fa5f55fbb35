"""``python -m tests.faults.worker POINTS [--broken BUILD]``: a worker that can be made to wait where a kill hurts most.

It is the product's worker but for the places at which it may wait, and for what a broken build takes out of it.
"""

import argparse
import os
import signal
import sys
from types import FrameType
from typing import Any
from uuid import UUID

from stoker import log
from stoker.errors import StokerError
from stoker.jobs.attempts import Ending
from stoker.jobs.lifecycle import Outcome
from stoker.settings import load
from stoker.workers.runner import Runner
from stoker.workers.runs import Asked, Run
from stoker.workers.storing import Storing
from stoker.workers.worker import Worker
from tests.faults import broken
from tests.faults.launching import points_of, put_before
from tests.faults.points import Points


def install(points: Points) -> None:
    """Make the places."""

    def before_claim(_: Runner, attempt: UUID) -> None:
        points.reach("placed", None, str(attempt))

    def before_preparation(_: Runner, run: Run) -> None:
        points.reach("claimed", run.claimed.job_number, str(run.id))

    def before_row(storing: Storing, _: Any, what: str) -> None:
        if what == "add_checkpoint":
            points.reach("row", storing._run.claimed.job_number, str(storing._run.id))

    def before_end(_: Runner, run: Run, ending: Ending) -> None:
        if ending.outcome is Outcome.SUCCEEDED:
            points.reach("result", run.claimed.job_number, str(run.id))
        elif ending.outcome is Outcome.PREEMPTED and run.asked is Asked.STOP:
            points.reach("draining", run.claimed.job_number, str(run.id))

    put_before(Runner, "_claim", before_claim)
    put_before(Runner, "_attempt", before_preparation)
    put_before(Storing, "_repeat", before_row)
    put_before(Runner, "_finish", before_end)


def leave(number: int, _: FrameType | None) -> None:
    """End before Celery has taken over."""
    raise SystemExit(0 if number == signal.SIGTERM else 1)


def main() -> int:
    """Run a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("points")
    parser.add_argument("--broken", choices=broken.BUILDS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, leave)
    if arguments.broken:
        broken.BUILDS[arguments.broken](points_of(arguments.points))
    install(points_of(arguments.points))
    settings = load(os.environ)
    log.configure(settings.log_level)
    forks = (sys.executable, "-m", "tests.faults.quick", "tests.faults.trainers", arguments.points)
    try:
        Worker(settings, os.environ, forks).serve()
    except StokerError as error:
        sys.stderr.write(log.redact(f"worker: {error}\n"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
