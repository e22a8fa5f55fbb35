"""Documents from outside: strict JSON, and validation whose errors name the field and the nearest known one."""

import difflib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stoker.errors import InvalidInput
from stoker.quoting import quoted, shown

MAX_DEPTH = 32
MAX_INTEGER = 2**63 - 1
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """A document in which unknown keys and values of another type are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DocumentInvalid(InvalidInput):
    """One or more fields of a document cannot be accepted; ``problems`` lists every one."""

    code = "invalid_document"

    def __init__(self, problems: list[InvalidInput]) -> None:
        first = problems[0]
        super().__init__(first.field, first.problem, first.fix)
        self.args = (problems,)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(str(problem) for problem in self.problems)


def parse_json(body: bytes) -> Any:
    """Read one JSON document: UTF-8, finite numbers within 64 bits, no repeated key, at most 32 levels deep.

    Raises InvalidInput.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("body", "is not valid UTF-8", "send JSON in UTF-8") from None
    if not text.strip():
        raise InvalidInput("body", "is empty", "send a JSON document")
    try:
        document = json.loads(
            text, parse_constant=_constant, parse_int=_integer, parse_float=_number, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise InvalidInput("body", f"is not JSON: {error.msg} at character {error.pos}", "send one document") from None
    except RecursionError:
        raise InvalidInput("body", f"is nested more than {MAX_DEPTH} levels deep", "flatten it") from None
    check(document)
    return document


@dataclass(frozen=True, slots=True)
class _Unfit:
    """Stands in a document for a number that cannot be accepted, until it is known in which field that is."""

    problem: str
    fix: str = "use a smaller number"


def _constant(name: str) -> _Unfit:
    return _Unfit(f"{name} is not a JSON number", "use a finite number")


def _integer(digits: str) -> int | _Unfit:
    if len(digits) > 20 or abs(value := int(digits)) > MAX_INTEGER:
        short = digits if len(digits) <= 24 else f"{digits[:20]}… ({len(digits)} digits)"
        return _Unfit(f"the integer {short} does not fit in 64 bits")
    return value


def _number(digits: str) -> float | _Unfit:
    value = float(digits)
    return value if math.isfinite(value) else _Unfit(f"the number {shown(digits, 24)} is not finite")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(shown(twice), "is given twice", "give it once")
    return document


def check(document: Any) -> None:
    """Refuse what no field can mean: NUL, lone surrogates, numbers that are not finite, endless nesting.

    Raises InvalidInput naming the path of the offending value.
    """
    for path, value, depth in _walk(document, "", 0):
        if depth > MAX_DEPTH:
            raise InvalidInput("body", f"is nested more than {MAX_DEPTH} levels deep", "flatten it")
        if isinstance(value, str) and (bad := unusable_character(value)):
            raise InvalidInput(path or "body", f"holds the character {bad}", "remove it")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(path or "body", f"{value} is not a finite number", "use a finite number")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            short = (
                quoted(value) if value.bit_length() < 400 else f"of {value.bit_length():,} bits"
            )  # slow to write out
            raise InvalidInput(path or "body", f"the integer {short} does not fit in 64 bits", "use a smaller number")
        if isinstance(value, _Unfit):
            raise InvalidInput(path or "body", value.problem, value.fix)


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    yield path, value, depth
    if depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}: a key", key, depth + 1
            yield from _walk(item, f"{path}.{shown(str(key))}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _walk(item, f"{path}[{position}]", depth + 1)


def unusable_character(text: str) -> str | None:
    """Name the first character that cannot be stored: NUL or half of a surrogate pair."""
    for character in text:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            return f"U+{ord(character):04X}"
    return None


def validate(model: type[Model], document: Any) -> Model:
    """Validate a document against a model.

    Raises DocumentInvalid with one problem for each field that cannot be accepted.
    """
    if not isinstance(document, dict):
        raise DocumentInvalid([InvalidInput("body", f"is {_kind(document)}", "send a JSON object")])
    check(document)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DocumentInvalid([_problem(model, item) for item in error.errors(include_url=False)]) from None


def _problem(model: type[BaseModel], item: Any) -> InvalidInput:
    path = ".".join(shown(str(part)) for part in item["loc"]) or "body"
    value = item.get("input")
    if item["type"] == "extra_forbidden":
        return InvalidInput(path, "no such field", _near(model, item["loc"]))
    if item["type"] == "missing":
        return InvalidInput(path, "is missing", "add it")
    if item["type"] == "value_error" and isinstance(cause := item["ctx"]["error"], InvalidInput):
        inside = not item["loc"] or cause.field.startswith(f"{path}.")  # a check of the whole section names the field
        return InvalidInput(cause.field if inside else path, cause.problem, cause.fix)
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[0].lower() + message[1:]
    return InvalidInput(path, f"{quoted(value)} is not accepted", message)


def _near(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    fields: dict[str, Any] = dict(model.model_fields)
    for part in location[:-1]:
        inner = _inner_model(fields[part].annotation) if part in fields else None
        fields = dict(inner.model_fields) if inner else {}
    names = list(fields)
    near = difflib.get_close_matches(str(location[-1])[:100], names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _kind(value: Any) -> str:
    names = {type(None): "null", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
