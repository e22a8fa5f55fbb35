"""Routes: data sets."""

import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from stoker.api.archive_summary import summarise
from stoker.api.dependencies import Caller_, Database, refuse_encoding
from stoker.api.parameters import Cursor, Limit
from stoker.api.services import Services, Shared
from stoker.api.uploads import Spooled, private_folder, read_pieces, refuse_forms, spooled
from stoker.errors import InvalidInput
from stoker.jobs import blobs, datasets
from stoker.jobs.accounts import Caller
from stoker.jobs.datasets import DatasetView
from stoker.jobs.moves import add_event
from stoker.jobs.pages import Page

router = APIRouter(tags=["datasets"])

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_ARCHIVE = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}}


@router.get("/datasets")
def list_datasets(
    session: Database,
    caller: Caller_,
    limit: Limit = 50,
    cursor: Cursor = None,
    name: Annotated[str | None, Query(description="Only the data set of this name")] = None,
) -> Page[DatasetView]:
    """Uploaded data sets, the latest first; the built-in ones need no upload."""
    return datasets.list_datasets(session, caller, limit, cursor, name)


@router.post("/datasets", status_code=201, openapi_extra=_ARCHIVE)
async def upload(
    request: Request,
    response: Response,
    services: Shared,
    caller: Caller_,
    name: Annotated[str, Query(description="a-z 0-9 . _ -, at most 100")],
    sha256: Annotated[str | None, Query(description="SHA-256 of the archive, to be checked")] = None,
) -> DatasetView:
    """Upload a zip or tar (also gzip, bzip2, xz) of class folders, as the body itself.

    `train/CLASS/image.jpg` and `test/CLASS/image.jpg`, or `CLASS/image.jpg` alone: then every fifth image of a class
    is a test image. The same content under the same name again changes nothing (200).
    """
    datasets.check_name(name)
    declared = _declared(sha256)
    refuse_encoding(request)
    refuse_forms(request, "the archive")
    folder = await run_in_threadpool(private_folder, services.settings.home, "uploads")
    async with spooled(request, folder, services.settings.upload_limit_bytes) as file:
        if declared not in (None, file.sha256):
            raise InvalidInput("sha256", f"the bytes that arrived have {file.sha256}", "send it again")
        view, created = await run_in_threadpool(_keep, services, caller, name, file)
    response.status_code = 201 if created else 200
    return view


def _declared(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    match = _DIGEST.fullmatch(sha256)
    if match is None:
        raise InvalidInput("sha256", "is not a SHA-256", "give 64 hexadecimal digits in lower case")
    return match[1]


def _keep(services: Services, caller: Caller, name: str, file: Spooled) -> tuple[DatasetView, bool]:
    """Check the archive, store its bytes, and give them the name."""
    summary = summarise(Path(file.path))
    stored = blobs.store(services.sessions, caller.team_id, read_pieces(file.path))
    with services.sessions() as session:
        view, created = datasets.add_dataset(session, caller, name, stored, summary)
        if created:
            reason = f"{name}: {file.size:,} bytes, sha256 {file.sha256}"
            add_event(session, "dataset_uploaded", actor=caller.user, reason=reason)
        session.commit()
    return view, created
