"""The sections `script`, `notebook` and `environment` of a spec: a team's own code, and what it is run with."""

import keyword
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from stoker.errors import InvalidInput
from stoker.jobs.documents import Strict
from stoker.jobs.spec_fields import InnerPath, printable
from stoker.quoting import quoted, unprintable_character

CODE = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}", re.ASCII)
RESERVED = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HOME", "PATH", "TMPDIR")
RESERVED_STARTS = ("LD_", "NVIDIA_", "PYTHON", "STOKER_")
MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # of one argument or variable: what the kernel takes
MAX_VARIABLE_BYTES = 32 * 1024
MAX_VARIABLES = 200
PYTHONS = re.compile(r"(?:.*/)?python(?:3(?:\.\d+)?)?", re.ASCII)


def code_digest(value: str) -> str:
    """Check the digest of code that was stored; raises InvalidInput with the field `code`."""
    if not CODE.fullmatch(value):
        raise InvalidInput(
            "code", f"{quoted(value)} is not a digest", "write sha256: and 64 hexadecimal digits in lower case"
        )
    return value


def variable_name(value: str) -> str:
    """Check the name of an environment variable that a job may set; raises InvalidInput with the field `variable`."""
    if not VARIABLE.fullmatch(value):
        raise InvalidInput("variable", f"{quoted(value)} is not a name", "use A-Z 0-9 _, at most 100, no digit first")
    if value in RESERVED or value.startswith(RESERVED_STARTS):
        raise InvalidInput("variable", f"{value} is reserved", f"Stoker sets it, and all of {_reserved()}; rename it")
    return value


def _reserved() -> str:
    return ", ".join([*RESERVED, *(f"{start}*" for start in RESERVED_STARTS)])


Code = Annotated[str, AfterValidator(code_digest)]
Variable = Annotated[str, AfterValidator(variable_name)]


class Git(Strict):
    """Where code came from, as its client saw it."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")
    branch: Annotated[str, printable("git.branch", 300)] | None = None
    dirty: bool = False  # the code differs from the commit


class OwnCode(Strict):
    """What a script and a notebook have in common."""

    code: Code
    git: Git | None = None


class Script(OwnCode):
    """A program of the team's own, started in the root of its code."""

    command: list[str] = Field(min_length=1, max_length=1000)
    processes: Literal[1] = 1

    @field_validator("command")
    @classmethod
    def _startable(cls, command: list[str]) -> list[str]:
        if not command[0].strip():
            raise InvalidInput("script.command", "its first word is empty", "name a program, as in [python, train.py]")
        if any(len(word.encode(errors="replace")) > MAX_ARGUMENT_BYTES for word in command):
            raise InvalidInput("script.command", "one word is longer than 128 KiB", "put it into a file of the code")
        return command


class Notebook(OwnCode):
    """A notebook of the team's own, run cell by cell."""

    path: InnerPath
    parameters: dict[str, Any] = Field(default={}, max_length=1000)  # JSON values

    @field_validator("path")
    @classmethod
    def _notebook(cls, path: str) -> str:
        if not path.endswith(".ipynb"):
            near = "run a script with kind: script" if path.endswith(".py") else "name a file that ends with .ipynb"
            raise InvalidInput("notebook.path", f"{quoted(path)} is not a notebook", near)
        return path

    @field_validator("parameters")
    @classmethod
    def _assignable(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise InvalidInput(
                    "notebook.parameters", f"{quoted(name)} cannot be a variable of Python", "rename the parameter"
                )
        return parameters


class Environment(Strict):
    """What a script or notebook finds beside Stoker's own packages and variables."""

    requirements: InnerPath | None = None  # a file of the code, as for pip
    variables: dict[str, str] = Field(default={}, max_length=MAX_VARIABLES)

    @field_validator("variables")
    @classmethod
    def _settable(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            variable_name(name)
            if (size := len(value.encode(errors="replace"))) > MAX_VARIABLE_BYTES:
                raise InvalidInput(
                    "variable",
                    f"{name} has {size:,} bytes",
                    f"use at most {MAX_VARIABLE_BYTES:,}, or put it into a file of the code",
                )
            if bad := unprintable_character(value):
                raise InvalidInput("variable", f"{name} holds the unprintable character {bad}", "remove it")
        return variables


def default_name(section: dict[str, Any]) -> str | None:
    """The name of a job whose spec gives none: that of its program, or of its notebook, without the ending."""
    if isinstance(path := section.get("path"), str):
        return _shortened(PurePosixPath(path).stem)
    command = section.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        return None
    words = iter(command[1:]) if PYTHONS.fullmatch(command[0]) else iter(command)
    for word in words:
        if word == "-m":
            return _shortened(next(words, ""))
        if word == "-c":
            break
        if not word.startswith("-"):
            return _shortened(PurePosixPath(word).name.removesuffix(".py"))
    return _shortened(PurePosixPath(command[0]).name)


def _shortened(text: str) -> str | None:
    seen = "".join(character for character in text if not unprintable_character(character)).strip()
    return seen[:100] or None
