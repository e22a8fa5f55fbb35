"""Files that a job left in its output folder."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput, NotFound
from stoker.jobs.models import Attempt, Blob, Output
from stoker.jobs.pages import Page


@dataclass(frozen=True, slots=True)
class OutputView:
    """One file; a later attempt that left the same path replaced it."""

    path: str
    bytes: int
    sha256: str
    attempt: int


def list_outputs(session: Session, number: int, limit: int, after: str | None) -> Page[OutputView]:
    """A job's files by path; the cursor is the last path of a page.

    Raises InvalidInput: the cursor is no path.
    """
    statement = (
        select(Output.path, Output.bytes, Blob.sha256, Attempt.ordinal)
        .join(Blob, Blob.id == Output.blob_id)
        .join(Attempt, Attempt.id == Output.attempt_id)
        .where(Output.job_number == number)
        .order_by(Output.path)
        .limit(limit + 1)
    )
    if after is not None:
        if not after.startswith("/"):
            raise InvalidInput("cursor", "is not one of this list", "pass on what `next` held, unchanged")
        statement = statement.where(Output.path > after[1:])
    found = [
        OutputView(path, size, sha256.hex(), ordinal) for path, size, sha256, ordinal in session.execute(statement)
    ]
    return Page(found[:limit], f"/{found[limit - 1].path}" if len(found) > limit else None)


def find_output(session: Session, number: int, path: str) -> Output:
    """One file of a job. Raises NotFound."""
    found = session.get(Output, (number, path))
    if found is None:
        raise NotFound("output", repr(path)[:200], f"`stoker pull {number} --output` fetches all there are")
    return found
