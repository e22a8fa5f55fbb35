"""Errors that only a client meets, and those of the server rebuilt from problem details.

StokerError
├── ServerUnreachable        no answer at all: wrong address, server down, network
├── NoServer                 no address is configured
├── ServerError              an answer that is no part of the contract
└── JobEnded
    ├── JobFailed            class, evidence and fix of the failure
    └── JobCancelled
"""

from functools import cache
from typing import Any

from stoker import errors
from stoker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    StokerError,
    TooLarge,
    Unavailable,
)
from stoker.jobs.documents import DocumentInvalid


class ServerUnreachable(StokerError):
    """Nothing answers at the address."""

    code = "server_unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"no answer from {self.url} ({self.reason}); is it running? `stoker up` starts one here"


class NoServer(StokerError):
    """Neither an argument nor the environment nor a file says where the server is."""

    code = "no_server"

    def __str__(self) -> str:
        return "no server is known: start one with `stoker up`, or name one with `stoker login URL` or STOKER_URL"


class ServerError(StokerError):
    """The server answered something that a Stoker API does not answer."""

    code = "server_error"

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status, self.sentence = status, sentence

    def __str__(self) -> str:
        return f"the server answered {self.status}: {self.sentence}"


class JobEnded(StokerError):
    """The job reached its end without a result."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class JobFailed(JobEnded):
    """The job failed; ``evidence`` holds what is known, a remote traceback included."""

    code = "job_failed"

    def __init__(self, number: int, failure_class: str, evidence: str, fix: str) -> None:
        super().__init__(number)
        self.args = (number, failure_class, evidence, fix)
        self.failure_class, self.evidence, self.fix = failure_class, evidence, fix

    def __str__(self) -> str:
        lines = [f"job {self.number} failed: {self.failure_class}", self.evidence, self.fix]
        return "\n".join(line for line in lines if line)


class JobCancelled(JobEnded):
    """The job was cancelled."""

    code = "job_cancelled"

    def __str__(self) -> str:
        return f"job {self.number} was cancelled"


class _Told(StokerError):
    """What a server told of an error: its sentence replaces the one that is made from arguments."""

    def __init__(self, sentence: str) -> None:
        Exception.__init__(self, sentence)  # not the arguments of the class it stands for
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.status, {"code": self.code, "detail": self.sentence})


def _subclasses(parent: type[StokerError]) -> list[type[StokerError]]:
    return [parent] + [item for child in parent.__subclasses__() for item in _subclasses(child)]


# What an error is whose code is not known here: of a part that clients do not load, or of a newer server.
BY_STATUS = {
    known.status: known
    for known in (NotAuthenticated, Forbidden, NotFound, Conflict, TooLarge, InvalidInput, Unavailable)
}


@cache
def _told_class(status: int, code: str) -> type[StokerError] | None:
    by_code = {
        known.__dict__.get("code"): known for known in _subclasses(StokerError) if known.__module__ == errors.__name__
    }
    known = by_code.get(code, BY_STATUS.get(status))
    return type(known.__name__, (_Told, known), {"code": code}) if known else None


def rebuild(status: int, problem: dict[str, Any]) -> StokerError:
    """Make the error that the server raised out of its problem details.

    ``except NotFound`` and the like catch it. InvalidInput keeps field, problem and fix of every field; the others
    keep the server's sentence. An unknown code gives the class of its status, or ServerError.
    """
    sentence, code = str(problem.get("detail") or problem.get("title") or "no reason given"), str(problem.get("code"))
    problems = [
        InvalidInput(str(item.get("field", "")), str(item.get("problem", "")), str(item.get("fix") or ""))
        for item in problem.get("errors") or []
        if isinstance(item, dict)
    ]
    if len(problems) > 1:
        return DocumentInvalid(problems)
    if problems and status == InvalidInput.status:
        return _invalid_class(code)(*problems[0].args)
    told = _told_class(status, code)
    return told(sentence) if told else ServerError(status, sentence)


def _invalid_class(code: str) -> type[InvalidInput]:
    children = {known.code: known for known in InvalidInput.__subclasses__() if known is not DocumentInvalid}
    return children.get(code, InvalidInput)
