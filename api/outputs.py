"""Routes: the files that a job left in its output folder."""

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from stoker.api.checkpoints import FILE
from stoker.api.dependencies import Database, SeenJob
from stoker.api.downloads import attachment
from stoker.api.parameters import Cursor, Limit
from stoker.api.services import Shared
from stoker.errors import NotFound
from stoker.jobs import blobs, measures, outputs
from stoker.jobs.documents import unusable_character
from stoker.jobs.measures import Measures
from stoker.jobs.outputs import OutputView
from stoker.jobs.pages import Page

router = APIRouter(prefix="/jobs/{number}", tags=["records"])


@router.get("/outputs")
def list_outputs(job: SeenJob, session: Database, limit: Limit = 50, cursor: Cursor = None) -> Page[OutputView]:
    """The files that a job left in `$STOKER_OUTPUT`, by path; there once an attempt has ended."""
    return outputs.list_outputs(session, job.number, limit, cursor)


@router.get("/outputs/{path:path}", response_class=StreamingResponse, responses=FILE)
def content(path: str, job: SeenJob, session: Database, services: Shared) -> StreamingResponse:
    """One of them, as a file to keep."""
    if unusable_character(path):
        raise NotFound("output", "of this name")
    found = outputs.find_output(session, job.number, path)
    name, blob_id, size = found.path.rpartition("/")[2], found.blob_id, found.bytes
    session.rollback()  # no transaction stays open while a slow client reads
    return attachment(blobs.read(services.sessions, blob_id), size, name)


@router.get("/usage")
def usage(job: SeenJob, session: Database) -> Measures:
    """What a job asked for and what it used, and what the latest job of the same code and command used."""
    return measures.measures(session, job)
