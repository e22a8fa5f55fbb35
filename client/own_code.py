"""Specs of a team's own code, made of flat fields, and the way of the code to the server."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from stoker.client.packing import Packed
from stoker.client.programs import check_requirements
from stoker.client.transport import Transport
from stoker.client.uploads import Progress
from stoker.errors import InvalidInput, NotFound
from stoker.jobs.spec import SECTIONS, JobSpec, Resources
from stoker.jobs.spec_code import Environment


def own_document(kind: str, section: Mapping[str, Any], packed: Packed, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Sort flat fields into a spec: the job's own, its resources, its environment.

    Raises InvalidInput: a field of none of them, or requirements that are not in the code.
    """
    git = {name: packed.git[name] for name in ("commit", "branch", "dirty")} if packed.git else None
    document: dict[str, Any] = {"version": 1, "kind": kind, kind: {"code": packed.code, **section, "git": git}}
    parts: dict[str, type[BaseModel]] = {"resources": Resources, "environment": Environment}
    inner: dict[str, dict[str, Any]] = {part: {} for part in parts}
    own = set(JobSpec.model_fields) - {*SECTIONS, "kind"}
    known = own.union(*(model.model_fields for model in parts.values()))
    for name, value in fields.items():
        place = next((part for part, model in parts.items() if name in model.model_fields), None)
        if name in own:
            document[name] = value
        elif place is not None:
            inner[place][name] = value
        else:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidInput(name, "no such field", f"did you mean {near[0]}?" if near else "see docs/cli.md")
    check_requirements(packed, inner["environment"].get("requirements"))
    for part, values in inner.items():
        if values:
            document[part] = {**values, **document.get(part, {})}
    return document


def send_code(transport: Transport, packed: Packed, progress: Progress | None = None) -> dict[str, Any]:
    """Bring code to the server unless it is there; returns what is known of it.

    Raises InvalidInput: a file changed under way; TooLarge, and what the server refuses.
    """
    try:
        known: dict[str, Any] = transport.get(f"/code/{packed.code}", own="true")
        return known
    except NotFound:
        pass
    made: dict[str, Any] = transport.upload(
        "/code", packed.pieces(progress), content_type="application/x-tar", size=packed.size
    )
    if made["code"] != packed.code:
        raise InvalidInput("code", f"{packed.folder} changed while it was sent", "submit it again")
    return made
