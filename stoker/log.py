"""Logs are events: a fixed name plus fields, one JSON line each on stderr."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_ABOUT: ContextVar[tuple[tuple[str, Any], ...]] = ContextVar("about", default=())
_URL_PASSWORD = re.compile(r"(?P<scheme>\w[\w+.-]*://[^:/@\s]*):[^@\s]+@")
_TOKEN = re.compile(r"stk_[A-Za-z0-9_-]+")


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Say in every line that this thread writes in the block what it is about, in those of libraries too."""
    token = _ABOUT.set((*_ABOUT.get(), *fields.items()))
    try:
        yield
    finally:
        _ABOUT.reset(token)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function, for one call in another thread, whose lines are about the same as the caller's."""
    return partial(copy_context().run, function)


def redact(text: str) -> str:
    """Hide passwords inside URLs, and tokens."""
    return _TOKEN.sub("stk_…", _URL_PASSWORD.sub(r"\g<scheme>:…@", text))


class JsonLines(logging.Formatter):
    """One record as one line of JSON; control characters are escaped, so a name cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with secrets redacted."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **dict(_ABOUT.get()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=True))


class Events:
    """Write named events: ``events.info("job_claimed", job=7, attempt=…)``."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Something only a developer wants to see."""
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        """Something happened as it should."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """Something went wrong that was dealt with."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        """Something went wrong that a person should look at; inside ``except`` the traceback is kept."""
        self._logger.error(event, extra={"fields": fields}, exc_info=sys.exc_info()[0] is not None)


def configure(level: str) -> None:
    """Send every log record of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
