"""pip, as it is called here: its options, what it reads of this machine, and what of its words is shown to a team."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{sys.prefix}/pip.conf")
SYSTEM_FILES = ("/etc/os-release", "/etc/lsb-release", "/etc/debian_version")  # pip tells its index about them
OPTIONS = (
    "--no-input",
    "--no-color",
    "--no-cache-dir",
    "--progress-bar=off",
    "--no-warn-script-location",
    "--disable-pip-version-check",
)
_ADDRESS = re.compile(r"\b[a-z+]+://\S*?([^/\s]*)(?=[\s)]|$)", re.IGNORECASE)
_HOST = re.compile(r"host='[^']*'")
_PROCESSED = re.compile(r"^(\s*Processing )\S*/", re.MULTILINE)
_WHERE = re.compile(r"^(Looking in (indexes|links):).*$", re.MULTILINE)


def hide_addresses(text: str) -> str:
    """What pip prints, without the places where this worker finds packages."""
    text = _PROCESSED.sub(r"\1…/", _WHERE.sub(r"\1 …", text))
    return _HOST.sub("host='…'", _ADDRESS.sub(r"…/\1", text))


def environment_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Where pip finds packages, as the worker's own environment says."""
    found = {name: value for name, value in environ.items() if name.startswith("PIP_")}
    home = Path(environ.get("HOME", "/"))
    for place in (home / ".config/pip/pip.conf", home / ".pip/pip.conf"):
        if place.is_file():
            found.setdefault("PIP_CONFIG_FILE", str(place))
    return found


def package_sources(environment: Mapping[str, str]) -> list[str]:
    """What pip reads of this machine: its configuration, and the folders and files that are named there."""
    files = [*FILES, *([environment["PIP_CONFIG_FILE"]] if "PIP_CONFIG_FILE" in environment else [])]
    said = [value for name, value in environment.items() if name.startswith("PIP_")]
    said += [Path(name).read_text(errors="replace") for name in files if os.access(name, os.R_OK)]
    words = " ".join(said).replace("=", " ").split()
    named = [urlsplit(word).path if word.startswith("file:") else word for word in words]
    return [*SYSTEM_FILES, *files, *(path for path in named if path.startswith("/"))]


def fix(said: str) -> str:
    """What to do about it, by the last that pip said."""
    if "conflict" in said and "torch" in said:
        return "leave torch and what belongs to it out of the requirements: jobs use the worker's own"
    if "No matching distribution" in said or "ResolutionImpossible" in said:
        return "correct the name or the version in the requirements; not every package is there for every Python"
    if "onnection" in said or "name resolution" in said:
        return "the worker does not reach its package index: ask its administrator"
    return "read what pip said, at the end of the log"
