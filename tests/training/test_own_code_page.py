"""The script of docs/own-code.md, as printed there: killed twice and continued, it ends as if it had never stopped."""

import difflib
import importlib
import random
import re
from pathlib import Path

import pytest
import torch

from stoker.training.config import CheckpointSource
from tests.support.pictures import write_pictures
from tests.support.scripts import Script
from tests.training.test_own_code_resume import content

PAGE = (Path(__file__).parents[2] / "docs/own-code.md").read_text()
PLAIN: str = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
NEW = re.findall(r"^\+(.*)$", PAGE, re.MULTILINE)
IMPORT, CURRENT, RESUME, LOOP = NEW
OLD = "for epoch in range(2):"


def resumable() -> str:
    """The plain script with the page's lines where the page says that they go."""
    importing = PLAIN.replace("import torch\n", f"{IMPORT}\nimport torch\n", 1)
    return importing.replace(OLD, f"{CURRENT}\n{RESUME}\n{LOOP}", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the script, and pictures as data."""
    importlib.import_module("torchvision.datasets")  # once, and not in each process
    write_pictures(tmp_path / "data/cifar10-jpeg", {"train": 50, "test": 4})
    (tmp_path / "train.py").write_text(resumable())
    return tmp_path


def ended(script: Script) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The last line that it printed, and the weights that it kept."""
    lines = list(script.printed())
    assert script.wait() == 0
    return lines[-1:], torch.load(script.output / "cifar_net.pth")


def test_four_lines_are_added_and_one_goes() -> None:
    changes = [line for line in difflib.ndiff(PLAIN.splitlines(), resumable().splitlines()) if line[0] in "+-"]
    assert sorted(line[2:] for line in changes if line[0] == "+") == sorted(NEW)
    assert [line[2:] for line in changes if line[0] == "-"] == [OLD]


def test_the_script_of_the_page_is_killed_twice_and_ends_as_if_it_had_never_stopped(folder: Path) -> None:
    with Script(folder, ["train.py"], scratch="whole") as whole:
        expected = ended(whole)
    dice = random.Random(4)
    source: CheckpointSource | None = None
    for attempt in ("first", "second"):
        with Script(folder, ["train.py"], scratch=attempt, checkpoint=source) as script:
            lines = script.printed()
            for _ in range(dice.randint(1, 2 if source is None else 1)):
                next(lines)
            script.kill()
            source = script.source() or source
    with Script(folder, ["train.py"], scratch="last", checkpoint=source) as last:
        line, weights = ended(last)
        assert line == expected[0]
        assert all(torch.equal(weights[name], value) for name, value in expected[1].items())
        assert content(last.source()) == content(whole.source())
