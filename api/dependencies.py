"""What routes ask for: who calls, a session, the body."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from stoker.api.parameters import Number
from stoker.api.services import Shared
from stoker.api.signin import bearer
from stoker.errors import TooLarge
from stoker.jobs.accounts import Caller
from stoker.jobs.models import Job
from stoker.jobs.visibility import seen_job

BODY_BYTES = 10**6
BODY_SECONDS = 15.0  # for the whole of it

Responses = dict[int | str, dict[str, Any]]  # what OpenAPI is told about answers


async def token(authorization: Annotated[str | None, Header(include_in_schema=False)] = None) -> str:
    """The token that the request shows; raises NotAuthenticated."""
    return bearer(authorization)


async def caller(services: Shared, shown: Annotated[str, Depends(token)]) -> Caller:
    """Who is calling; raises NotAuthenticated."""
    if (known := services.sign_in.remembered(shown)) is not None:
        return known
    return await run_in_threadpool(services.sign_in.check, shown)


def database(services: Shared) -> Iterator[Session]:
    """A session for this request; the route commits."""
    with services.sessions() as session:
        yield session


Token = Annotated[str, Depends(token)]
Caller_ = Annotated[Caller, Depends(caller)]
Database = Annotated[Session, Depends(database)]


def job(number: Number, session: Database, caller: Caller_) -> Job:
    """The job that the path names; raises JobNotFound where the caller may not see it."""
    return seen_job(session, caller, number)


SeenJob = Annotated[Job, Depends(job)]


async def body(request: Request) -> bytes:
    """A JSON body, as bytes, still to be parsed by jobs.documents.

    Raises TooLarge, and 415 for another or a compressed content, 408 where it does not arrive.
    """
    refuse_encoding(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send JSON with `Content-Type: application/json`")
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                read += piece
                if len(read) > BODY_BYTES:
                    raise TooLarge("the body", BODY_BYTES)
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive in time; send it again") from None
    return bytes(read)


def refuse_encoding(request: Request) -> None:
    """Refuse a compressed body, which may be a bomb; raises 415."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send the body as it is, without Content-Encoding")


JsonBody = Annotated[bytes, Depends(body)]
