"""A notebook as a file: read and refused with a reason, given its parameters, and rewritten whole with its outputs."""

import ast
import difflib
import json
import keyword
import os
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from stoker.errors import InvalidInput
from stoker.quoting import quoted
from stoker.training.masking import Mask

PARAMETERS, INJECTED = "parameters", "injected-parameters"  # tags, as papermill has them
SAVE_SECONDS = 2.0  # between two writes while a cell gives output
CELL_LIMIT_BYTES = 10 * 10**6  # of the outputs of one cell
_LIMIT_BYTES = 100 * 10**6


def read(path: Path) -> NotebookNode:
    """Read a Python notebook of format 4, without its old outputs. Raises InvalidInput."""
    name = path.name
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise InvalidInput(name, f"more than {_LIMIT_BYTES:,} bytes", "clear its outputs")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(name, f"it cannot be read: {error.strerror}", "give a notebook of the code") from None
    except (ValueError, RecursionError):
        raise InvalidInput(name, "it is no notebook: not JSON", "give an .ipynb file") from None
    if not isinstance(document, dict) or "nbformat" not in document:
        raise InvalidInput(name, "it is no notebook: it has no nbformat", "give an .ipynb file")
    if document["nbformat"] != 4:
        version = f"it is of format {quoted(document['nbformat'], 20)}"
        raise InvalidInput(name, f"{version}, not 4", "convert it: jupyter nbconvert --to notebook")
    _check_language(name, document.get("metadata"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without an id are as good as any
            notebook = nbformat.from_dict(document)  # type: ignore[no-untyped-call]
            nbformat.validate(notebook)
            notebook = nbformat.reads(json.dumps(document), as_version=4)  # type: ignore[no-untyped-call]
    except Exception as error:
        problem = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InvalidInput(name, f"it is no valid notebook: {problem}", "save it again with Jupyter") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook  # type: ignore[no-any-return]


def set_parameters(notebook: NotebookNode, values: Mapping[str, Any]) -> list[str]:
    """Put a cell that sets these after the one tagged ``parameters``, or first where there is none.

    Returns warnings, of names that the tagged cell does not set. Raises InvalidInput: a name that is none.
    """
    for name in values:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInput(f"parameters.{name:.60}", "not a name of Python", "use letters, digits and _")
    cells = notebook.cells = [cell for cell in notebook.cells if INJECTED not in tags(cell)]
    if not values:
        return []
    place = next((index for index, cell in enumerate(cells) if PARAMETERS in tags(cell)), None)
    source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in values.items())])
    made = nbformat.v4.new_code_cell(source, metadata={"tags": [INJECTED]})  # type: ignore[no-untyped-call]
    if notebook.nbformat_minor < 5:
        del made["id"]
    cells.insert(0 if place is None else place + 1, made)
    if place is None:
        return ["no cell is tagged `parameters`: they are set before the first cell"]
    return _unknown(cells[place].source, values)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    found = cell.metadata.get("tags", [])
    return found if isinstance(found, list) else []


def _check_language(name: str, metadata: Any) -> None:
    known = metadata if isinstance(metadata, dict) else {}
    for part, key in (("kernelspec", "language"), ("language_info", "name")):
        section = known.get(part)
        language = section.get(key) if isinstance(section, dict) else None
        if language is not None and str(language).lower() not in ("python", "python3", "ipython"):
            raise InvalidInput(name, f"its language is {quoted(language, 40)}", "only Python notebooks can be run")


def _unknown(source: str, values: Mapping[str, Any]) -> list[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []  # magics: its names cannot be told
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return [
        f"the cell tagged `parameters` sets no {name}"
        + "".join(f": did you mean {near}?" for near in difflib.get_close_matches(name, names, n=1))
        for name in values
        if name not in names
    ]


class Sheet:
    """The executed copy: takes the outputs of the cell that runs, and is on the disk again soon after each."""

    def __init__(self, notebook: NotebookNode, path: Path, aside: Path, mask: Mask | None = None) -> None:
        """Write to ``path``, by a file in the folder ``aside`` on the same disk, what ``mask`` leaves of texts."""
        self._mask = mask or Mask()
        self._notebook, self._path, self._partial = notebook, path, aside / f".{path.name}.partial"
        self._lock = threading.RLock()  # threads of a cell print too
        self._owner = os.getpid()  # forked children print, but not here
        self._cell: NotebookNode | None = None
        self._size, self._next_save, self._clear_first = 0, 0.0, False
        self._shown: dict[str, list[NotebookNode]] = {}  # outputs that can be updated, by display id
        self._stream: NotebookNode | None = None  # the output that is printed to; its text is put together to be saved
        self._lines: list[str] = []  # of it, whole ones
        self._line: list[str] = []  # what came after them
        path.parent.mkdir(parents=True, exist_ok=True)
        self.save()

    def begin(self, cell: NotebookNode, number: int) -> None:
        """The cell that runs from now on, the ``number``-th."""
        with self._lock:
            self._cell, self._size, self._clear_first = cell, 0, False
            cell.execution_count = number

    def write(self, name: str, text: str) -> None:
        """Add what was printed to ``name``: stdout or stderr."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if not self._room(len(text)):
                return
            outputs = self._outputs()
            if not (outputs and outputs[-1] is self._stream and outputs[-1].name == name):
                self._settle()
                self._stream, self._lines, self._line = _output("stream", name=name, text=""), [], []
                outputs.append(self._stream)
            self._line.append(text)
            if "\n" in text or "\r" in text:
                whole, newline, rest = "".join(self._line).rpartition("\n")
                self._lines.append(_overwritten(whole + newline))
                self._line = [_overwritten(rest)]
            self._save_if_due()

    def show(
        self, kind: str, data: Mapping[str, Any], metadata: Mapping[str, Any], display: str | None = None, **more: Any
    ) -> None:
        """Add what was displayed: a bundle of MIME types."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if not self._room(len(json.dumps(data, default=str))):
                return
            made = _output(kind, data=self._masked(data), metadata=dict(metadata), **more)
            self._outputs().append(made)
            if display is not None:
                self._shown.setdefault(display, []).append(made)
            self._save_if_due()

    def update(self, display: str, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Replace what was displayed under an id."""
        with self._lock:
            for made in self._shown.get(display, []):
                made.data, made.metadata = nbformat.from_dict(self._masked(data)), nbformat.from_dict(dict(metadata))  # type: ignore[no-untyped-call]
            self._save_if_due()

    def fail(self, name: str, value: str, trace: list[str]) -> None:
        """Add an error, with its traceback."""
        with self._lock:
            told = {"ename": name, "evalue": self._mask.text(value), "traceback": self._mask.document(trace)}
            self._outputs().append(_output("error", **told))

    def clear(self, *, wait: bool) -> None:
        """Remove the outputs of the cell: now, or when the next one comes."""
        with self._lock:
            self._clear_first = True
            if not wait:
                self._outputs()

    def save(self) -> None:
        """Write the copy as it is now; it is whole at every moment."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._settle()
            text = nbformat.writes(self._notebook)  # type: ignore[no-untyped-call]
            self._partial.write_text(text, encoding="utf-8", errors="replace")
            self._partial.replace(self._path)
            self._next_save = time.monotonic() + SAVE_SECONDS

    def _settle(self) -> None:
        if self._stream is not None:
            self._stream.text = self._mask.text("".join(self._lines) + _overwritten("".join(self._line)))

    def _masked(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A bundle of MIME types; what stands for the bytes of a picture is left as it is."""
        pictures = ("image/png", "image/jpeg", "image/gif", "application/pdf")
        return {kind: item if kind in pictures else self._mask.document(item) for kind, item in data.items()}

    def _outputs(self) -> list[NotebookNode]:
        if self._cell is None:
            return []
        if self._clear_first:
            self._cell.outputs, self._clear_first, self._size = [], False, 0
        return self._cell.outputs  # type: ignore[no-any-return]

    def _room(self, size: int) -> bool:
        before, self._size = self._size, self._size + size
        if before <= CELL_LIMIT_BYTES < self._size:
            text = f"\n… more than {CELL_LIMIT_BYTES:,} bytes: the rest is left out\n"
            self._outputs().append(_output("stream", name="stderr", text=text))
        return self._size <= CELL_LIMIT_BYTES

    def _save_if_due(self) -> None:
        if time.monotonic() >= self._next_save:
            self.save()


def _output(kind: str, **fields: Any) -> NotebookNode:
    return nbformat.v4.new_output(kind, **fields)  # type: ignore[no-untyped-call, no-any-return]


def _overwritten(text: str) -> str:
    """What a terminal shows of a text whose last lines go back to their beginning, as progress bars do."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line[:-1].rpartition("\r")[2] + line[-1:] if line else line for line in lines)
