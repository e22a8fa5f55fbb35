"""Exit codes: promises to scripts."""

from stoker.errors import StokerError

OK = 0
ERROR = 1
USAGE = 2
NOT_ALLOWED = 3  # not logged in, or forbidden
NOT_FOUND = 4
UNREACHABLE = 5
FAILED = 100
NOT_FINISHED = 101
CANCELLED = 103
INTERRUPTED = 130

FATES = {"succeeded": OK, "failed": FAILED, "cancelled": CANCELLED}
BY_CODE = {
    "not_authenticated": NOT_ALLOWED,
    "forbidden": NOT_ALLOWED,
    "server_unreachable": UNREACHABLE,
    "unavailable": UNREACHABLE,
    "no_server": UNREACHABLE,
    "other_schema": USAGE,
    "job_failed": FAILED,
    "job_cancelled": CANCELLED,
}
BY_STATUS = {422: USAGE, 404: NOT_FOUND}  # what the server would have answered; every child of the error included


def code_of(error: Exception) -> int:
    """Return the exit code of an error: of its own code, else of its status, else 1."""
    if isinstance(error, StokerError):
        return BY_CODE.get(error.code, BY_STATUS.get(error.status, ERROR))
    return NOT_FINISHED if isinstance(error, TimeoutError) else ERROR


def fate(state: str) -> int:
    """Return the exit code of a command that followed a job: by its state, whatever else was seen."""
    return FATES.get(state, NOT_FINISHED)
