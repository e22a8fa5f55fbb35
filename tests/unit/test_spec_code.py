"""A spec of a team's own code: what is filled in, what is refused, and how."""

from typing import Any

import pytest

from stoker.errors import InvalidInput
from stoker.jobs.documents import DocumentInvalid
from stoker.jobs.spec import parse_spec

CODE = "sha256:" + "0" * 64
SCRIPT: dict[str, Any] = {"script": {"code": CODE, "command": ["python", "train.py", "--lr", "0.1"]}}
NOTEBOOK: dict[str, Any] = {"notebook": {"code": CODE, "path": "look/a.ipynb"}}
TRAIN: dict[str, Any] = {"train": {"dataset": "digits"}}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "train.py", "--lr", "0.1"], "train"),
        (["/usr/bin/python3.11", "-u", "src/fit.py"], "fit"),
        (["python", "-m", "package.main", "x"], "package.main"),
        (["python", "-c", "print(1)"], "python"),
        (["./run.sh", "train.py"], "run.sh"),
        (["x" * 300], "x" * 100),
        (["a\nb"], "ab"),
    ],
)
def test_a_script_is_named_by_its_program(command: list[str], name: str) -> None:
    spec = parse_spec({"script": {"code": CODE, "command": command}})
    assert (spec.kind, spec.name) == ("script", name)


def test_a_document_holds_what_its_kind_has_and_no_more() -> None:
    script, notebook, train = (parse_spec(each).document() for each in (SCRIPT, NOTEBOOK, TRAIN))
    assert (script["environment"], script["datasets"]) == ({"requirements": None, "variables": {}}, [])
    assert (notebook["kind"], notebook["name"], notebook["notebook"]["parameters"]) == ("notebook", "a", {})
    assert not {"script", "notebook", "environment", "datasets", "secrets"} & set(train)
    for document in (script, notebook, train):
        assert parse_spec(document).document() == document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"kind": "script"}, "script: is missing"),
        ({"kind": "train"} | SCRIPT, "train: is missing"),
        (SCRIPT | TRAIN | {"kind": "script"}, "train: is given, but the kind is script"),
        (TRAIN | {"secrets": ["A"]}, "secrets: belongs to scripts and notebooks"),
        (TRAIN | {"environment": {"variables": {"A": "b"}}}, "environment: belongs to scripts"),
        ({"script": {"code": "5", "command": ["a"]}}, "script.code: '5' is not a digest"),
        ({"script": {"code": CODE.upper(), "command": ["a"]}}, "is not a digest"),
        ({"script": {"code": CODE, "command": []}}, "script.command: [] is not accepted"),
        ({"script": {"code": CODE, "command": [" "]}}, "its first word is empty"),
        ({"script": {"code": CODE, "command": ["a", 7]}}, "script.command.1: 7 is not accepted"),
        ({"script": {"code": CODE, "command": ["a\0"]}}, "U+0000"),
        ({"script": {"code": CODE, "command": ["a", "x" * 200_000]}}, "one word is longer than 128 KiB"),
        ({"script": {"code": CODE, "comand": ["a"], "command": ["a"]}}, "did you mean command?"),
        ({"script": {"code": CODE, "command": ["a"], "processes": 2}}, "script.processes"),
        ({"notebook": {"code": CODE, "path": "a.py"}}, "notebook.path: 'a.py' is not a notebook"),
        ({"notebook": {"code": CODE, "path": "../a.ipynb"}}, "notebook.path: '../a.ipynb' leads out"),
        ({"notebook": {"code": CODE, "path": "/a.ipynb"}}, "leads out"),
        ({"notebook": {"code": CODE, "path": "a/./b.ipynb"}}, "is not a plain path"),
        ({"notebook": {"code": CODE, "path": "a\nb.ipynb"}}, "unprintable character U+000A"),
        ({"notebook": {"code": CODE, "path": "a.ipynb", "parameters": {"l r": 1}}}, "'l r' cannot be a variable"),
        ({"notebook": {"code": CODE, "path": "a.ipynb", "parameters": {"if": 1}}}, "'if' cannot be a variable"),
        (SCRIPT | {"environment": {"requirements": "/etc/passwd"}}, "environment.requirements: '/etc/passwd' leads"),
        (SCRIPT | {"environment": {"requirement": "a"}}, "did you mean requirements?"),
        (SCRIPT | {"datasets": ["../x"]}, "datasets.0: '../x' is not a name"),
        (SCRIPT | {"datasets": ["a", "a"]}, "datasets: one is given twice"),
        (SCRIPT | {"secrets": ["A", "A"]}, "secrets: one is given twice"),
        (SCRIPT | {"secrets": ["PATH"]}, "PATH is reserved"),
        (
            SCRIPT | {"secrets": ["A"], "environment": {"variables": {"A": "b"}}},
            "A is a variable of the environment too",
        ),
    ],
)
def test_what_cannot_run_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(document)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [
        *["LD_PRELOAD", "PYTHONPATH", "PYTHON", "NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"],
        *["STOKER_TOKEN", "HOME", "TMPDIR", "PATH", "lower", "A=B", "1A", "A-B"],
        *("", "A B", "A\nB", "Ä", "A" * 101),
    ],
)
def test_names_of_variables_that_are_refused(name: str) -> None:
    with pytest.raises(DocumentInvalid, match=r"environment\.variables"):
        parse_spec(SCRIPT | {"environment": {"variables": {name: "x"}}})


@pytest.mark.parametrize(("value", "words"), [("a\nb", r"U\+000A"), ("x" * 10**7, "A has 10,000,000 bytes")])
def test_values_of_variables_that_are_refused(value: str, words: str) -> None:
    with pytest.raises(DocumentInvalid, match=words):
        parse_spec(SCRIPT | {"environment": {"variables": {"A": value}}})
