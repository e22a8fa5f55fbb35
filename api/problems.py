"""Every error as RFC 9457 problem details with Stoker's own stable code."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stoker.errors import InvalidInput, JobNotFound, NotFound, StokerError, Unavailable
from stoker.jobs.documents import DocumentInvalid
from stoker.log import Events
from stoker.quoting import quoted, shown

MEDIA_TYPE = "application/problem+json"
PREFIX = "/api/v1"
RETRY_SECONDS = 2
CLIENT_GONE = 499  # nobody reads it; it is for the log

log = Events("stoker.api")


def problem(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error",
        "status": status,
        "detail": detail,
        "code": code,
        "errors": errors or [],
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


def of_error(error: StokerError) -> Response:
    """The problem that an error of Stoker's own is."""
    found: list[InvalidInput] = []
    if isinstance(error, DocumentInvalid):
        found = error.problems
    elif isinstance(error, InvalidInput):
        found = [error]
    headers = {}
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    errors = [{"field": one.field, "problem": one.problem, "fix": one.fix} for one in found]
    return problem(error.status, error.code, str(error), errors, headers)


def internal() -> Response:
    """The problem that is shown for an error that nobody foresaw: it says nothing about the inside."""
    return problem(500, "internal", "something went wrong inside Stoker; its log says what")


def install(app: FastAPI, routes: Sequence[Route]) -> None:
    """Answer every error with a problem; ``routes`` tell what an address takes."""
    app.state.routes = routes
    app.add_exception_handler(StokerError, _stoker_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(SQLAlchemyError, _database_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)


async def _stoker_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StokerError)  # noqa: S101 - registered for this class
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", code=error.code)
    return of_error(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    codes = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 415: "unsupported_media_type"}
    details = {404: "there is nothing at this address", 405: "this address does not take this method"}
    detail = details.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers |= _allowed(request)
    return problem(error.status_code, codes.get(error.status_code, "http_error"), detail, headers=headers)


def _allowed(request: Request) -> dict[str, str]:
    """All methods of an address: the framework names those of the first route alone that has it."""
    path = request.url.path.removeprefix(PREFIX)
    routes: Sequence[Route] = request.app.state.routes
    methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return {"Allow": ", ".join(sorted(methods))} if methods else {}


async def _parameter_error(_: Request, error: Exception) -> Response:
    """A parameter in the query that cannot be read is 422; one in the path names something that does not exist."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    found = []
    for one in error.errors():
        where, name = str(one["loc"][0]), str(one["loc"][-1])
        if where == "path":
            value = shown(str(one["input"]))
            return of_error(JobNotFound(value) if name == "number" else NotFound(name.replace("_", " "), value))
        if one["type"] == "missing":
            found.append(InvalidInput(name, "is missing", "add it"))
        else:
            message = one["msg"].removeprefix("Value error, ").removeprefix("Input ")
            found.append(InvalidInput(name, f"{quoted(str(one['input']))} is not accepted", message))
    return of_error(DocumentInvalid(found))


async def _database_error(_: Request, error: Exception) -> Response:
    """Not reached, restarting, too slow or not migrated yet: try again. Anything else is a fault of ours."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    passing = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, psycopg.errors.UndefinedTable)
    if isinstance(error, PoolTimeout) or isinstance(cause, passing):
        log.warning("database_unavailable", error=type(cause or error).__name__)
        return of_error(Unavailable("the database"))
    log.error("request_failed", error=type(cause or error).__name__)
    return internal()


async def _client_gone(_: Request, error: Exception) -> Response:  # noqa: ARG001 - the signature of a handler
    return Response(status_code=CLIENT_GONE)
