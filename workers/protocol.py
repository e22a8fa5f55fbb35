"""What a trainer may say: each message checked for schema, size and rate. A trainer is not trusted."""

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from stoker.errors import StokerError
from stoker.quoting import quoted

MAX_LINE_BYTES = 64 * 1024
MAX_KEYS = 200  # different metrics of one attempt
BURST = 2000  # messages
RATE = 200.0  # messages a second, in the long run
_COUNT_LIMIT = 2**53  # integers up to here survive JSON everywhere
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:-]{0,99}")
_CLASS = re.compile(r"[a-z][a-z_]{0,49}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}){0,3}")

Check = Callable[[Any], bool]


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNT_LIMIT


def _number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < _COUNT_LIMIT  # first: one of 400 digits is no float at all
    return type(value) is float and math.isfinite(value)


def _text(limit: int) -> Check:
    return lambda value: isinstance(value, str) and len(value) <= limit and "\0" not in value and _encodable(value)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _list(item: Check, limit: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= limit and all(map(item, value))


def _metrics(value: Any) -> bool:
    known = isinstance(value, dict) and len(value) <= 100
    return known and all(_matches(_KEY)(key) and (item is None or _number(item)) for key, item in value.items())


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


_FILE_NAME = _matches(_FILE)
_DIGEST = _matches(re.compile(r"(sha256:)?[0-9a-f]{64}"))
SCHEMAS: Mapping[str, Mapping[str, Check]] = {
    "started": {"device": _text(200), "torch": _text(100)},
    "first_step": {"seconds": _number},
    "progress": {
        "phase": lambda value: value in ("prepare", "train", "evaluate"),
        "epoch": _count,
        "epochs": _count,
        "step": _count,
        "steps": _count,
        "images_per_second": _optional(_number),
    },
    "metrics": {"key": _matches(_KEY), "steps": _list(_count, 8192), "values": _list(_number, 8192)},
    "checkpoint": {
        "path": _FILE_NAME,
        "step": _count,
        "epoch": _count,
        "bytes": _count,
        "sha256": _matches(_SHA256),
        "metrics": _metrics,
    },
    "prepared": {"digest": _DIGEST, "train_images": _count, "test_images": _count},
    "images": {
        "path": _FILE_NAME,
        "count": _count,
        "height": _count,
        "width": _count,
        "channels": _count,
        "digest": _DIGEST,
    },
    "predictions": {"path": _FILE_NAME, "count": _count},
    "result": {"path": _FILE_NAME},
    "cell": {"index": _count, "count": _count, "source": _text(200)},  # of a notebook: the one that runs, from 1
    "note": {"text": _text(4000)},
    "failure": {"class": _matches(_CLASS), "evidence": _text(16000), "fix": _text(4000)},
    "stopped": {"step": _count},
}


class MessageRefused(StokerError):
    """A line of a trainer is no message that can be accepted; the text says why, without quoting it at length."""

    code = "message_refused"


def parse(line: bytes) -> dict[str, Any]:
    """Read one line. Keys that are not in the schema are left out.

    Raises MessageRefused.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise MessageRefused("a line that is not JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    schema = SCHEMAS.get(kind) if isinstance(kind, str) else None
    if schema is None:
        raise MessageRefused(f"a message of unknown type {quoted(str(kind), 40)}")
    for name, check in schema.items():
        if name not in message or not check(message[name]):
            raise MessageRefused(f"a {kind} message whose {name} is missing or cannot be")
    if kind == "metrics" and len(message["steps"]) != len(message["values"]):
        raise MessageRefused("a metrics message with more steps than values, or fewer")
    return {"type": kind} | {name: message[name] for name in schema}


class Inbox:
    """Bytes in, checked messages out. Whatever comes, memory stays flat and nothing is raised."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty; ``clock`` gives seconds."""
        self.refused: list[str] = []  # one warning per reason, for the job's log
        self._clock, self._tokens, self._at = clock, float(BURST), clock()
        self._rest, self._skipping = b"", False
        self._last_step: dict[str, int] = {}

    def take(self, data: bytes) -> list[dict[str, Any]]:
        """The complete messages in ``data`` and what came before; the others are dropped with one warning each."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = []
        for line in lines:
            if self._skipping or len(line) > MAX_LINE_BYTES:  # the end of a line that was too long
                self._skipping = False
                self._refuse(f"a line of more than {MAX_LINE_BYTES} bytes")
            elif line and (message := self._message(line)):
                messages.append(message)
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return messages

    def _message(self, line: bytes) -> dict[str, Any] | None:
        now = self._clock()
        self._tokens = min(BURST, self._tokens + (now - self._at) * RATE) - 1
        self._at = now
        if self._tokens < 0:
            self._tokens = 0.0
            self._refuse(f"more than {RATE:g} messages a second")
            return None
        try:
            message = parse(line)
            if message["type"] == "metrics":
                self._check_steps(message)
        except MessageRefused as refusal:
            self._refuse(str(refusal))
            return None
        return message

    def _check_steps(self, message: dict[str, Any]) -> None:
        steps, key = message["steps"], message["key"]
        if key not in self._last_step and len(self._last_step) >= MAX_KEYS:
            raise MessageRefused(f"more than {MAX_KEYS} different metrics")
        before = [self._last_step.get(key, -1), *steps]
        rising = all(earlier < later for earlier, later in zip(before, steps, strict=False))
        if not steps or not rising:
            raise MessageRefused("a metrics message whose steps do not rise")
        self._last_step[key] = steps[-1]

    def _refuse(self, reason: str) -> None:
        if reason not in self.refused and len(self.refused) < 20:
            self.refused.append(reason)
