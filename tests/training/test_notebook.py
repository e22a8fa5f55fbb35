"""A notebook is run cell by cell in one process; its executed copy holds what came out, whatever happens."""

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from stoker.errors import InvalidInput
from stoker.training import notebook_file
from stoker.training.config import NotebookTask
from stoker.training.masking import Mask
from tests.support.scripts import Script

COMMAND = (sys.executable, "-m", "stoker.training.notebook")


def write(path: Path, *cells: str, tags: dict[int, str] | None = None, **metadata: Any) -> Path:
    """Write a notebook with these code cells."""
    made = nbformat.v4.new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]
    for index, source in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
        if index in (tags or {}):
            cell.metadata["tags"] = [(tags or {})[index]]
        made.cells.append(cell)
    nbformat.write(made, path)  # type: ignore[no-untyped-call]
    return path


def run(folder: Path, **parameters: Any) -> Script:
    """Start the notebook of the folder."""
    return Script(folder, COMMAND, notebook=NotebookTask("a.ipynb", parameters))


def executed(script: Script) -> list[Any]:
    """The code cells of the executed copy, which is valid."""
    notebook = nbformat.read(script.output / "a.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(cell: Any) -> str:
    """What a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


CELLS = (
    "lr = 0.1\nepochs = 3",
    "import sys\nprint(lr, epochs); print('careful', file=sys.stderr)\nlr * 2",
    "for part in range(3): print(f'\\r{part} of 3', end='')",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
    "%time x = 1\n!echo from the shell; echo $HOME_NOT_SET\nlines = !echo one; echo two\nprint(lines)",
    """import multiprocessing
def square(x): return x * x
with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(square, [1, 2, 3]))""",
    """import stoker
run = stoker.current_run()
for epoch in run.epochs(epochs): run.log(loss=1 / (epoch + 1))
run.result(accuracy=0.5)""",
    """from IPython.display import HTML, display
handle = display(HTML('<b>1</b>'), display_id=True)
handle.update(HTML('<b>2</b>'))""",
    "await __import__('asyncio').sleep(0)\n_",
    "raise KeyError('expected')",
    "import os; assert os.getcwd() == sys.path[0]",
)


def test_cells_run_in_order_and_their_outputs_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", *CELLS, tags={0: "parameters", 9: "raises-exception"})
    with run(tmp_path, lr=0.5) as script:
        printed = list(script.printed())
        assert script.wait() == 0, script.messages
    _, injected, first, bar, plot, shell, pool, loop, shown, waits, raises, _ = executed(script)
    assert injected.source == "# Parameters\nlr = 0.5"
    assert [(one.output_type, one.get("name"), one.get("text")) for one in first.outputs[:2]] == [
        ("stream", "stdout", "0.5 3\n"),
        ("stream", "stderr", "careful\n"),
    ]
    assert first.outputs[2].data["text/plain"] == "1.0"
    assert text_of(bar) == "2 of 3"
    assert any("image/png" in output.get("data", {}) for output in plot.outputs)
    assert "from the shell" in text_of(shell)
    assert "['one', 'two']" in text_of(shell)
    assert text_of(pool) == "[1, 4, 9]\n"
    assert loop.execution_count == 8
    assert shown.outputs[0].data["text/html"] == "<b>2</b>"
    assert waits.outputs[0].output_type == "execute_result"
    assert raises.outputs[0].ename == "KeyError"
    assert script.points("loss") == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert [(one["index"], one["count"], one["source"]) for one in script.of_kind("cell")][:2] == [
        (1, 12, "lr = 0.1"),
        (2, 12, "# Parameters"),
    ]
    assert json.loads((script.scratch / "result.json").read_text()) == {"accuracy": 0.5}
    assert "from the shell" in printed


def test_a_failing_cell_is_named_with_its_traceback_and_what_came_before_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "print('before')", "\n# divides\nx = 1\nx / 0", "print('never')")
    with run(tmp_path) as script:
        assert script.wait() == 1
    before, failed, after = executed(script)
    assert text_of(before) == "before\n"
    assert failed.outputs[0].ename == "ZeroDivisionError"
    assert after.outputs == []
    (failure,) = script.of_kind("failure")
    assert failure["class"] == "user_error"
    assert failure["evidence"].startswith("cell 2 of 3: # divides\n")
    assert "ZeroDivisionError: division by zero" in failure["evidence"]


@pytest.mark.parametrize(
    ("cell", "klass", "words"),
    [
        ("input('continue?')", "user_error", "input() has nobody to ask"),
        ("import no_such_module", "import_error", "No module named 'no_such_module'"),
        ("for", "user_error", "SyntaxError"),
        ("%matplotlib qt", "user_error", "a job has no display for qt"),
    ],
)
def test_what_cannot_be_done_in_a_job_fails_with_a_sentence(cell: str, klass: str, words: str, tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", cell)
    with run(tmp_path) as script:
        assert script.wait() == 1
    assert script.messages[-1]["class"] == klass
    assert words in script.messages[-1]["evidence"]


def test_a_notebook_that_is_killed_leaves_what_its_cells_gave(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "print('done')", "import signal; signal.pause()")
    with run(tmp_path) as script:
        script.until("cell", 2)
        script.kill()
    assert text_of(executed(script)[0]) == "done\n"
    assert script.of_kind("cell")[-1]["source"] == "import signal; signal.pause()"


def test_a_notebook_that_is_asked_to_stop_leaves_in_the_middle_of_a_cell(tmp_path: Path) -> None:
    loop = "import stoker\nrun = stoker.current_run()\nkept = run.resume(total=0)\n"
    body = "for step in run.steps(range(10**9)):\n    kept.total += 1\n    if step == 0: print('runs')"
    write(tmp_path / "a.ipynb", loop + body, "print('never')")
    with run(tmp_path) as script:
        lines = script.printed()
        assert "runs" in lines
        script.ask("stop")
        assert script.wait() == 0
    assert [message["type"] for message in script.messages[-2:]] == ["checkpoint", "stopped"]
    first, second = executed(script)
    assert (text_of(first), [one.output_type for one in first.outputs], second.outputs) == ("runs\n", ["stream"], [])


def test_a_flood_of_output_is_cut(tmp_path: Path) -> None:
    write(tmp_path / "a.ipynb", "for _ in range(30): print('x' * 10**6)")
    with run(tmp_path) as script:
        assert sum(map(len, script.printed())) >= 30 * 10**6
        assert script.wait() == 0
    assert (script.output / "a.ipynb").stat().st_size < 11 * 10**6
    assert "the rest is left out" in text_of(executed(script)[0])


def shown_after(path: Path, sheet: notebook_file.Sheet) -> Any:
    """What the second output shows once the sheet was saved again."""
    sheet.save()
    (cell,) = nbformat.read(path, as_version=4).cells  # type: ignore[no-untyped-call]
    return cell.outputs[1].data


def read(path: Path) -> Any:
    """Read a notebook."""
    return notebook_file.read(path)


def test_what_is_printed_in_small_pieces_is_one_text_in_which_bars_are_overwritten(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])  # type: ignore[no-untyped-call]
    sheet = notebook_file.Sheet(notebook, tmp_path / "a.ipynb", tmp_path)
    sheet.begin(notebook.cells[0], 1)
    for number in range(100_000):  # the work must not grow with the square of it
        for piece in (str(number), "\n"):
            sheet.write("stdout", piece)
    for piece in ("a", "b\r", "c", "d\r", "e", "f", "\r", "\n", "g\rh", "i\n", "j"):
        sheet.write("stdout", piece)
    sheet.write("stderr", "k\rl")
    sheet.write("stdout", "m\n")
    sheet.save()
    (cell,) = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells  # type: ignore[no-untyped-call]
    texts = [(output.name, output.text) for output in cell.outputs]
    numbers = "".join(f"{number}\n" for number in range(100_000))
    assert texts == [("stdout", numbers + "ef\nhi\nj"), ("stderr", "l"), ("stdout", "m\n")]


def test_a_secret_is_taken_out_of_texts_and_tracebacks_and_of_nothing_else(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("'abcd'")])  # type: ignore[no-untyped-call]
    sheet = notebook_file.Sheet(notebook, tmp_path / "a.ipynb", tmp_path, Mask(["abcd"]))
    sheet.begin(notebook.cells[0], 1)
    for piece in ("it is ab", "cd\n"):
        sheet.write("stdout", piece)
    sheet.show("display_data", {"text/html": "<b>abcd</b>", "image/png": "abcd", "application/json": ["abcd"]}, {}, "x")
    sheet.fail("ValueError", "abcd", ["in abcd"])
    sheet.save()
    (cell,) = nbformat.read(tmp_path / "a.ipynb", as_version=4).cells  # type: ignore[no-untyped-call]
    stream, shown, error = cell.outputs
    assert (cell.source, stream.text) == ("'abcd'", "it is [secret]\n")
    assert shown.data == {"text/html": "<b>[secret]</b>", "image/png": "abcd", "application/json": ["[secret]"]}
    assert (error.evalue, error.traceback) == ("[secret]", ["in [secret]"])
    sheet.update("x", {"text/plain": "abcd"}, {})
    assert shown_after(tmp_path / "a.ipynb", sheet) == {"text/plain": "[secret]"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "not JSON"),
        ("print('hello')", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "it has no nbformat"),
        ('{"a": 1}', "it has no nbformat"),
        ('{"nbformat": 3, "worksheets": []}', "it is of format 3, not 4"),
        ('{"nbformat": 4, "nbformat_minor": 5}', "no valid notebook"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [7]}', "no valid notebook"),
        (
            '{"nbformat": 4, "nbformat_minor": 5, "cells": [], "metadata": {"language_info": {"name": "R"}}}',
            "its language is 'R'",
        ),
    ],
)
def test_what_is_no_python_notebook_is_refused_with_the_reason(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(InvalidInput, match=problem):
        read(tmp_path / "a.ipynb")


def test_a_notebook_that_is_not_there_fails_by_its_name(tmp_path: Path) -> None:
    with run(tmp_path) as script:
        assert script.wait() == 1
    assert script.messages[-1]["class"] == "user_error"
    assert script.messages[-1]["evidence"].startswith("a.ipynb: it cannot be read")


def test_parameters_replace_earlier_ones_and_unknown_names_are_told(tmp_path: Path) -> None:
    notebook = read(write(tmp_path / "a.ipynb", "lr = 1", "lr = 2", tags={0: "parameters", 1: "injected-parameters"}))
    warnings = notebook_file.set_parameters(notebook, {"lr": 3, "leyers": [1, None], "lrr": True})
    assert [cell.source for cell in notebook.cells] == [
        "lr = 1",
        "# Parameters\nlr = 3\nleyers = [1, None]\nlrr = True",
    ]
    assert warnings == [
        "the cell tagged `parameters` sets no leyers",
        "the cell tagged `parameters` sets no lrr: did you mean lr?",
    ]


@pytest.mark.parametrize("name", ["", "a b", "for", "x=1;y"])
def test_a_parameter_that_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    notebook = read(write(tmp_path / "a.ipynb", "lr = 1"))
    with pytest.raises(InvalidInput, match="not a name of Python"):
        notebook_file.set_parameters(notebook, {name: 1})
