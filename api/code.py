"""Routes: a team's own code, stored once by content."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from stoker.api import code_archive
from stoker.api.dependencies import Caller_, Database, Responses, refuse_encoding
from stoker.api.downloads import attachment
from stoker.api.services import Services, Shared
from stoker.api.uploads import Spooled, private_folder, refuse_forms, spooled
from stoker.jobs import blobs, snapshots
from stoker.jobs.accounts import Caller
from stoker.jobs.moves import add_event
from stoker.jobs.snapshots import CodeView

router = APIRouter(tags=["code"])

Digest = Annotated[str, PathParameter(description="sha256:… as the upload answered")]
Own = Annotated[bool, Query(description="by the caller's own team, whose jobs can use no other's")]
_TAR = {"requestBody": {"required": True, "content": {"application/x-tar": {"schema": {"type": "string"}}}}}
_FILE: Responses = {200: {"content": {"application/x-tar": {}}, "description": "A plain tar, sorted by name"}}


@router.post("/code", status_code=201, openapi_extra=_TAR)
async def upload(request: Request, response: Response, services: Shared, caller: Caller_) -> CodeView:
    """Store code: a plain tar of plain files as the body; links, devices and names that lead out are refused.

    The digest is the SHA-256 over a line `0644 <SHA-256> <path>` for each file (0755: executable), in the order of the
    paths' UTF-8 bytes. The same code again changes nothing (200). What no job refers to is let go of after an hour.
    """
    refuse_encoding(request)
    refuse_forms(request, "a plain tar")
    limit = services.settings.code_limit_bytes
    folder = await run_in_threadpool(private_folder, services.settings.home, "uploads")
    async with spooled(request, folder, limit + code_archive.HEADERS_LIMIT_BYTES, "the code") as file:
        view, created = await run_in_threadpool(_keep, services, caller, file, limit)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{request.url.path}/{view.code}"
    return view


def _keep(services: Services, caller: Caller, file: Spooled, limit_bytes: int) -> tuple[CodeView, bool]:
    """Check the tar, store it, and note it under its digest."""
    archive = code_archive.read(Path(file.path), limit_bytes)
    stored = blobs.store(services.sessions, caller.team_id, archive.pieces())
    with services.sessions() as session:
        view, created = snapshots.add_code(session, caller, archive.code, stored, archive.summary)
        if created:
            reason = f"{view.code}: {view.files:,} files, {view.bytes:,} bytes"
            add_event(session, "code_uploaded", actor=caller.user, reason=reason)
        session.commit()
    return view, created


@router.head("/code/{code}", include_in_schema=False)
@router.get("/code/{code}")
def show(code: Digest, session: Database, caller: Caller_, own: Own = False) -> CodeView:
    """Whether code is stored, and what is known of it; it stays for an hour from now on, without any job too."""
    view = snapshots.touch_code(session, replace(caller, role="member") if own else caller, code)
    session.commit()
    return view


@router.get("/code/{code}/content", response_class=StreamingResponse, responses=_FILE)
def content(code: Digest, session: Database, caller: Caller_, services: Shared) -> StreamingResponse:
    """The code itself."""
    blob_id, size = snapshots.find_content(session, caller, code)
    session.rollback()  # no transaction stays open while a slow client reads
    name = f"code-{code.removeprefix('sha256:')[:12]}.tar"
    return attachment(blobs.read(services.sessions, blob_id), size, name, "application/x-tar")
