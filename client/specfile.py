"""Specs as people write them: a YAML or JSON file, and ``--set optimizer.lr=0.01``."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from stoker.errors import InvalidInput
from stoker.quoting import quoted

LIMIT_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """YAML without what surprises: no alias (bombs), no repeated key, no dates.

    1e-3 is a number; 2:30 (base 60), 010 and 0x10 are not: a field that wants one says so.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - the parent's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":float", ":int"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise InvalidInput("spec", "uses a YAML alias (*name)", "write the value where it is needed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise InvalidInput(str(twice)[:60], "is given twice", "give it once")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_spec(path: str) -> dict[str, Any]:
    """Read a spec from a file, or from stdin for ``-``.

    Raises InvalidInput: unreadable, over 1 MB, no YAML, no mapping.
    """
    try:
        if path == "-":
            content = sys.stdin.buffer.read(LIMIT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInput("spec", f"cannot read {path}: {error.strerror}", "name a YAML or JSON file") from None
    if len(content) > LIMIT_BYTES:
        raise InvalidInput("spec", f"{path} is larger than {LIMIT_BYTES:,} bytes", "a spec is a page of text")
    document = _parse(content, path)
    if not isinstance(document, dict):
        raise InvalidInput("spec", f"{path} holds no mapping", "write `name: value` lines, as in examples/")
    return document


def _parse(content: bytes, path: str) -> Any:
    try:
        return yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506 - a SafeLoader with less, not more
    except UnicodeDecodeError:
        raise InvalidInput("spec", f"{path} is not UTF-8", "save it as UTF-8") from None
    except RecursionError:
        raise InvalidInput("spec", f"{path} is nested too deep", "flatten it") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        words = " ".join(str(error).split())
        raise InvalidInput("spec", f"{path} is not YAML: {words[:300]}", "check the indentation and quotes") from None


def assign(fields: dict[str, Any], assignments: tuple[str, ...]) -> None:
    """Set values inside nested mappings: ``optimizer.lr=0.01``, ``augment=[flip]``, ``name=a``.

    Raises InvalidInput.
    """
    for text in assignments:
        path, equals, value = text.partition("=")
        *parents, last = path.split(".")
        if not equals or not all([*parents, last]):
            raise InvalidInput("--set", f"{quoted(text, 80)} is no assignment", "write --set optimizer.lr=0.01")
        place = fields
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InvalidInput("--set", f"{parent} of {quoted(path, 80)} is a value", "set the value itself")
        place[last] = _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return _parse(text.encode(), "--set") if text.startswith(("[", "{")) else text
