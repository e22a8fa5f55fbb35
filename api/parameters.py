"""Parameters of paths and queries, read strictly: `1_000`, `1.0`, `٣` and `yes` are no numbers and no truth values."""

import difflib
import re
from typing import Annotated, Any

from fastapi import Path, Query, Request
from fastapi.dependencies.models import Dependant
from pydantic import BeforeValidator

from stoker.errors import InvalidInput, NotFound
from stoker.jobs.documents import DocumentInvalid, unusable_character
from stoker.quoting import shown

_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            raise ValueError("give a whole number in digits")
        return int(value)
    return value


def _truth(value: Any) -> Any:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise ValueError("give true or false")
        return value == "true"
    return value


Whole = BeforeValidator(_whole)
Truth = BeforeValidator(_truth)

Number = Annotated[int, Whole, Path(ge=1, description="A job's number")]
Limit = Annotated[int, Whole, Query(ge=1, le=500, description="Most items in the answer")]
Cursor = Annotated[str | None, Query(description="`next` of the page before")]


async def known_parameters(request: Request) -> None:
    """Refuse parameters that the route does not have, that come twice, or that no database can hold.

    Raises InvalidInput; NotFound for the path's own.
    """
    for name, value in request.path_params.items():
        if unusable_character(str(value)):
            raise NotFound(name, shown(str(value)))
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = _parameters(dependant) if dependant is not None else {}
    given = request.query_params.multi_items()
    problems = [found for name, value in given if (found := _problem(name, value, known))]
    names = [name for name, _ in given]
    problems += [
        InvalidInput(name, "is given twice", "give it once")
        for name in dict.fromkeys(names)
        if names.count(name) > 1 and not known.get(name, True)
    ]
    if problems:
        raise DocumentInvalid(problems)


def _problem(name: str, value: str, known: dict[str, bool]) -> InvalidInput | None:
    if name not in known:
        near = difflib.get_close_matches(name[:100], known, n=1)
        fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
        return InvalidInput(shown(name), "no such parameter", fix)
    if bad := unusable_character(value):
        return InvalidInput(name, f"holds the character {bad}", "remove it")
    return None


def _parameters(dependant: Dependant) -> dict[str, bool]:
    """The names of a route's query parameters, and whether each may be repeated."""
    known = {field.alias: "list" in str(field.field_info.annotation) for field in dependant.query_params}
    for inner in dependant.dependencies:
        known |= _parameters(inner)
    return known
