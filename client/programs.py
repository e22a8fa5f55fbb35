"""What is to run, looked at before it is sent: a program or notebook that cannot start is refused here."""

import json
import os
from pathlib import Path

from stoker.client.packing import Packed
from stoker.errors import InvalidInput
from stoker.jobs.code_files import EXECUTABLE
from stoker.jobs.spec_code import PYTHONS
from stoker.quoting import shown

NOTEBOOK_LIMIT_BYTES = 100 * 10**6


def check_command(packed: Packed, command: list[str]) -> None:
    """Refuse a command whose program, or Python file, is not there, cannot be executed, or is no Python.

    Raises InvalidInput.
    """
    if not command:
        raise InvalidInput("script.command", "is missing", "write it after two dashes: stoker run -- python train.py")
    program = command[0]
    if PYTHONS.fullmatch(program):
        script = next((word for word in command[1:] if not word.startswith("-")), None)
        told = any(word in {"-m", "-c"} for word in command[1 : command.index(script)]) if script else True
        if script is not None and not told and not Path(script).is_absolute():
            _check_python(packed, script)
    elif "/" in program and not Path(program).is_absolute():
        _check_executable(packed, program)


def _check_python(packed: Packed, script: str) -> None:
    _must_be_there(packed, script)
    try:
        compile((packed.folder / script).read_bytes(), script, "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"{shown(script)}, line {error.lineno}"
        raise InvalidInput("script.command", f"{where}: {error.msg}", "correct it; nothing was sent") from None
    except (OSError, ValueError) as error:  # NUL bytes, or a file that went away
        raise InvalidInput("script.command", f"{shown(script)} is no Python: {error}", "name a program") from None


def _check_executable(packed: Packed, program: str) -> None:
    _must_be_there(packed, program)
    path = os.path.normpath(program)
    if not any(file.path == path and file.mode == EXECUTABLE for file in packed.files):
        raise InvalidInput(
            "script.command",
            f"{shown(program)} is not executable",
            f"chmod +x {shown(path)}, or start it by its program",
        )


def check_requirements(packed: Packed, path: object) -> None:
    """Refuse a file of requirements that is not carried along; what is no path inside the code, the spec refuses.

    Raises InvalidInput.
    """
    if isinstance(path, str) and not Path(path).is_absolute() and ".." not in Path(path).parts:
        _must_be_there(packed, path, "environment.requirements")


def _must_be_there(packed: Packed, path: str, field: str = "script.command") -> None:
    if packed.has(path):
        return
    if (packed.folder / path).is_file():
        raise InvalidInput(field, f"{shown(path)} is ignored, by git or by .stokerignore", "take it out of the list")
    where = shown(str(packed.folder))
    raise InvalidInput(field, f"there is no file {shown(path)} in {where}", "paths are relative to that folder")


def check_notebook(packed: Packed, path: str) -> None:
    """Refuse what is no notebook of Python, or is not among the files.

    Raises InvalidInput.
    """
    if not packed.has(path):
        raise InvalidInput("notebook.path", f"there is no file {shown(path)} among the code", "see .stokerignore")
    try:
        with (packed.folder / path).open("rb") as file:
            document = json.loads(file.read(NOTEBOOK_LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):
        raise InvalidInput(
            "notebook.path", f"{shown(path)} is not a notebook: no JSON", "name an .ipynb file"
        ) from None
    if not isinstance(document, dict) or not isinstance(document.get("cells"), list):
        fix = (
            "save it in format 4" if isinstance(document, dict) and "worksheets" in document else "name an .ipynb file"
        )
        raise InvalidInput("notebook.path", f"{shown(path)} is not a notebook: it has no cells", fix)
    language = _language(document)
    if language.lower() not in {"python", "python3", "ipython"}:
        raise InvalidInput(
            "notebook.path", f"{shown(path)} is a notebook of {shown(language)}", "Stoker runs those of Python"
        )


def _language(document: dict[str, object]) -> str:
    """The language that a notebook names, Python where it names none."""
    metadata = document.get("metadata")
    for section, field in (("kernelspec", "language"), ("language_info", "name"), ("kernelspec", "name")):
        found = metadata.get(section) if isinstance(metadata, dict) else None
        if isinstance(found, dict) and isinstance(name := found.get(field), str):
            return name
    return "python"
