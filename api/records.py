"""Routes: what attempts report."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from stoker.api.dependencies import Database, SeenJob
from stoker.api.parameters import Cursor, Limit, Whole
from stoker.errors import InvalidInput
from stoker.jobs import reads_metrics, reads_records
from stoker.jobs.pages import Page
from stoker.jobs.reads_metrics import Metrics
from stoker.jobs.reads_records import CheckpointView, LogView

router = APIRouter(prefix="/jobs", tags=["records"])

After = Annotated[int | None, Whole, Query(ge=0, description="Only pieces after the one with this id")]
Tail = Annotated[int | None, Whole, Query(ge=1, le=10_000, description="Only so many lines from the end")]


@router.get("/{number}/metrics")
def metrics(
    job: SeenJob,
    session: Database,
    key: Annotated[list[str] | None, Query(description="Only this metric; may be repeated")] = None,
) -> Metrics:
    """Metrics over steps, at most 2,000 points each; what a resumed attempt did again replaces what it was before."""
    return reads_metrics.read_metrics(session, job.number, key or ())


@router.get("/{number}/logs")
def logs(job: SeenJob, session: Database, limit: Limit = 50, after: After = None, tail: Tail = None) -> Page[LogView]:
    """What the job printed, in pieces that may begin and end inside a line; `next` is the next page's `after`."""
    if tail is not None and after is not None:
        raise InvalidInput("tail", "excludes `after`", "give one of them")
    if tail is not None:
        return reads_records.read_log_tail(session, job.number, tail)
    return reads_records.read_logs(session, job.number, limit, after or 0)


@router.get("/{number}/checkpoints")
def checkpoints(job: SeenJob, session: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[CheckpointView]:
    """The checkpoints that are kept, the latest first."""
    return reads_records.list_checkpoints(session, job, limit, cursor)


@router.get("/{number}/result")
def result(job: SeenJob, session: Database) -> dict[str, Any]:
    """What a succeeded classifier is worth: `accuracy`, `loss`, `per_class`, `confusion`, `classes`, and more."""
    return reads_records.read_result(session, job)
