"""What is known of a job while it runs: its latest loss, and when it is expected to end."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from stoker.jobs.durations import running_durations
from stoker.jobs.forecast import Durations
from stoker.jobs.lifecycle import State
from stoker.jobs.reads_jobs import JobView
from stoker.jobs.reads_metrics import finite

# Each job's last segment by its index, however many it has written.
_LOSSES = text("""
SELECT wanted.number, latest.values
FROM unnest(CAST(:numbers AS bigint[]), CAST(:attempts AS uuid[])) AS wanted (number, attempt)
CROSS JOIN LATERAL (
    SELECT values FROM metric_segments
    WHERE job_number = wanted.number AND key = 'loss' AND attempt_id = wanted.attempt
    ORDER BY first_step DESC LIMIT 1
) latest
""")


def with_live(session: Session, known: Durations, views: Sequence[JobView]) -> list[JobView]:
    """The same jobs; those that run with the latest loss that they told and their expected end."""
    running = [view for view in views if view.state is State.RUNNING]
    if not running:
        return list(views)
    losses = _losses(session, running)
    ends = _ends(session, known, [view.number for view in running])
    return [replace(view, loss=losses.get(view.number), ends_at=ends.get(view.number)) for view in views]


def _losses(session: Session, running: Sequence[JobView]) -> dict[int, float | None]:
    wanted = {"numbers": [view.number for view in running], "attempts": [view.attempt_id for view in running]}
    rows = session.execute(_LOSSES, wanted)
    return {number: finite(struct.unpack("<d", bytes(values)[-8:])[0]) for number, values in rows}


def _ends(session: Session, known: Durations, numbers: Sequence[int]) -> dict[int, datetime]:
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    runs = running_durations(session, known, numbers)
    return {run.number: now + timedelta(seconds=run.left.p50_seconds) for run in runs}
