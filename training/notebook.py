"""Runs a notebook, cell by cell: ``python -m stoker.training.notebook``, started by a worker in the code's folder."""

import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from stoker.errors import InvalidInput
from stoker.training import notebook_file
from stoker.training.current import VARIABLE, current_run, task_of
from stoker.training.diagnosis import explain
from stoker.training.failure import TrainingFailed
from stoker.training.masking import Mask
from stoker.training.notebook_file import Sheet
from stoker.training.run import Run
from stoker.training.shell import Shell

_SOURCE_CHARACTERS = 200
_TRACE_LINES = 30
_EVIDENCE_CHARACTERS = 8000


def main() -> int:
    """Run the notebook that the file of STOKER_RUN names; returns the exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    task = task_of(os.environ)
    if task is None or task.notebook is None:
        sys.stderr.write(f"{VARIABLE} names no notebook: this is started by a worker (`stoker notebook FILE.ipynb`)\n")
        return 2
    run = current_run()
    try:
        path = Path(task.notebook.path)
        notebook = notebook_file.read(path)
        for warning in notebook_file.set_parameters(notebook, task.notebook.parameters):
            run.tell("note", text=warning)
        mask = Mask(os.environ[name] for name in task.secrets if name in os.environ)
        sheet = Sheet(notebook, Path(task.output) / path.name, Path(task.scratch), mask)
    except InvalidInput as error:
        sys.stderr.write(f"{error}\n")
        _fail(run, TrainingFailed("user_error", str(error), "change the notebook, or the job"))
        return 1
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as an interpreter does for a script
    return _run_cells(run, notebook, sheet)


def _run_cells(run: Run, notebook: NotebookNode, sheet: Sheet) -> int:
    shell = Shell.start(sheet)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for index, cell in enumerate(cells, 1):
        if not cell.source.strip():
            continue
        first = first_line(cell.source)
        run.tell("cell", index=index, count=len(cells), source=first)
        shell.log(f"cell {index} of {len(cells)}: {first}")
        sheet.begin(cell, shell.execution_count)
        shell.trace = []
        result = shell.run_cell(cell.source, store_history=True)  # type: ignore[no-untyped-call]
        sys.stdout.flush()
        sheet.save()
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, SystemExit):
            return _exit_code(error.code)
        if error is not None and "raises-exception" not in notebook_file.tags(cell):
            where = f"cell {index} of {len(cells)}: {first}"
            if not run.fail(error):
                _fail(run, _failure(error, where, shell.trace))
            return 1
    return 0


def first_line(source: str) -> str:
    """The first line of a cell that has something on it."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:_SOURCE_CHARACTERS]


def _failure(error: BaseException, where: str, trace: list[str]) -> TrainingFailed:
    known = explain(error)
    evidence = "\n".join([where, *(trace[-_TRACE_LINES:] or [f"{type(error).__name__}: {error}"])])
    return TrainingFailed(known.failure_class, evidence, "see the executed copy among the job's outputs")


def _fail(run: Run, failure: TrainingFailed) -> None:
    evidence = failure.evidence.replace("\0", "")[-_EVIDENCE_CHARACTERS:]
    run.tell("failure", **{"class": failure.failure_class, "evidence": evidence, "fix": failure.fix})


def _exit_code(code: Any) -> int:
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    sys.exit(main())
