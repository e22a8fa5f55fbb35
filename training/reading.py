"""From a JSON document to a frozen dataclass, strictly: an unknown field, a missing one, another type are refused."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, TypeVar

from stoker.errors import InvalidInput
from stoker.quoting import quoted

T = TypeVar("T")


def jsonable(values: dict[str, Any]) -> dict[str, Any]:
    """Return what ``dataclasses.asdict`` made with lists for tuples."""
    return {
        key: jsonable(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
    }


def read(kind: type[T], document: object, prefix: str) -> T:
    """Make a ``kind`` of a document; ``prefix`` begins the names in errors. Raises InvalidInput."""
    if not isinstance(document, Mapping):
        raise InvalidInput(prefix.rstrip(".") or "document", f"{_show(document)} is not a mapping", "use `name: value`")
    hints = typing.get_type_hints(kind)
    for key in document:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            raise InvalidInput(
                f"{prefix}{key!s:.60}", "unknown field", f"did you mean {near[0]}?" if near else "remove it"
            )
    values = {key: _value(hints[key], value, f"{prefix}{key}") for key, value in document.items()}
    for known in dataclasses.fields(kind):  # type: ignore[arg-type]
        if known.name not in values and known.default is MISSING and known.default_factory is MISSING:
            raise InvalidInput(f"{prefix}{known.name}", "missing", "give it")
    return kind(**values)


def _value(hint: Any, value: object, name: str) -> object:
    options = typing.get_args(hint) if hint is not tuple and typing.get_origin(hint) not in (tuple, dict) else ()
    if value is None and type(None) in options:
        return None
    kind = next((option for option in options if option is not type(None)), hint)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return read(kind, value, f"{name}.")
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InvalidInput(name, f"{_show(value)} is not a list of texts", "write [flip, translate(4)]")
    if typing.get_origin(kind) is dict:
        kind = dict
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not kind:  # also refuses true as a number
        raise InvalidInput(name, f"{_show(value)} is not of type {kind.__name__}", "give a value of that type")
    return value


def choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InvalidInput, with the nearest ones, unless ``value`` is one of the choices."""
    if value in choices:
        return
    near = difflib.get_close_matches(value, choices, n=3) or choices[:6]
    raise InvalidInput(name, f"no {name} {quoted(value)}", f"choose {', '.join(near)}")


def within(name: str, value: float, least: float, most: float) -> None:
    """Raise InvalidInput unless ``least <= value <= most``."""
    if not least <= value <= most:  # also false for NaN
        raise InvalidInput(name, f"{_show(value)} is out of range", f"use {least:g} to {most:g}")


def _show(value: object) -> str:
    """Return a short form of a value; an integer of thousands of digits cannot be turned into text at all."""
    return "this integer" if isinstance(value, int) and abs(value) > 2**64 else quoted(value)
