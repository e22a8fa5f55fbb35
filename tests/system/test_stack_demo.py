"""`make demo` on a handful of images: the whole way, in its own words."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

IMAGES = {"train": 24, "test": 5}  # of each class
CLASSES = {"dark": (0, 90), "light": (160, 255)}  # name -> range of the brightness


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of class folders that a network can tell apart."""
    dice = random.Random(0)
    for part, count in IMAGES.items():
        for name, (least, most) in CLASSES.items():
            folder = tmp_path / "Dark and Light" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = bytes(dice.randint(least, most) for _ in range(32 * 32 * 3))
                Image.frombytes("RGB", (32, 32), pixels).save(folder / f"{number}.png")
    return tmp_path / "Dark and Light"


@pytest.mark.timeout(240)
def test_the_demo_shows_what_it_promises(home: Path, images: Path, tmp_path: Path) -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("STOKER_")}
    environ |= {"STOKER_HOME": str(home), "STOKER_DEMO_DATA": str(images), "STOKER_WORKER_DEVICES": "none"}
    done = subprocess.run(
        [sys.executable, "-m", "stoker.stack.demo"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=230,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert f"Data: {images} (STOKER_DEMO_DATA)" in said
    assert re.search(r"^Job 1 is succeeded", said, re.MULTILINE)  # so small a job may be done before it is seen running
    losses = re.findall(r"^Epoch (\d): loss \d\.\d{3}$", said, re.MULTILINE)
    assert losses == ["1", "2"]
    assert re.search(r"^Accuracy of the network on the 10 test images: \d+ %$", said, re.MULTILINE)
    assert re.search(r"^Accuracy for class: dark  is \d+\.0 %$", said, re.MULTILINE)
    assert "A count over the 10 stored predictions gives the same accuracy." in said
    assert re.search(r"^Job:    http://127\.0\.0\.1:\d+/\S+/1$", said, re.MULTILINE)
    assert re.search(r"^Flower: http://127\.0\.0\.1:\d+/task/[0-9a-f-]{36}$", said, re.MULTILINE)
    assert said.endswith("Everything is stopped, no process is left.\n")
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width > 800
    assert (home / "demo" / "token").exists()
