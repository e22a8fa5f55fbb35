"""What leaves the cache when it grows too large, and what never does."""

import os
import threading
from pathlib import Path

import pytest

from stoker.training import cache, datasets
from stoker.training.config import DatasetSource, TrainConfig
from tests.training.children import Child, task
from tests.training.pictures import class_files, zipped

NOW = 2e9  # seconds since 1970


def nobody() -> None:
    raise AssertionError("nobody else has the lock")


def put(folder: Path, name: str, age_seconds: float, size: int = 100) -> Path:
    """A file of the cache, last used so long before NOW."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(bytes(size))
    with cache.locked(path, nobody):
        pass
    os.utime(path.with_suffix(".lock"), (NOW - age_seconds,) * 2)
    return path


def test_what_a_process_that_died_left_half_made_goes_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    (folder / "key").mkdir(parents=True)
    (folder / "key.lock").write_text("100")
    half = folder / ".half"
    (half / "made").mkdir(parents=True)
    for path in (folder / ".key.complete", folder / ".gone.complete", folder / ".fresh", half / "made" / "file"):
        path.touch()
    for path in (folder / ".key.complete", folder / ".gone.complete", half):
        os.utime(path, (NOW - cache.LEFT_SECONDS - 60,) * 2)
    os.utime(folder / ".fresh", (NOW - 60,) * 2)
    cache.trim(tmp_path, 0, NOW)
    assert {path.name for path in folder.iterdir()} == {"key", "key.lock", ".key.complete", ".fresh"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Four files of 100 bytes each, by when they were used."""
    return {
        "old": put(tmp_path / "uploads", "a.zip", 9000),
        "older": put(tmp_path / "datasets", "b-v1.safetensors", 10_000),
        "young": put(tmp_path / "datasets", "c-v1.safetensors", 1000),
        "new": put(tmp_path / "uploads", "d.tar", 60),
    }


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (0, {"old", "older", "young", "new"}),
        (400, {"old", "older", "young", "new"}),
        (399, {"old", "young", "new"}),
        (200, {"young", "new"}),
        (1, {"new"}),  # found for a trainer that may not hold it yet
    ],
)
def test_what_was_used_longest_ago_goes_first(
    limit: int, left: set[str], files: dict[str, Path], tmp_path: Path
) -> None:
    cache.trim(tmp_path, limit, NOW)
    assert {name for name, path in files.items() if path.exists()} == left


def test_what_is_held_stays(files: dict[str, Path], tmp_path: Path) -> None:
    with cache.locked(files["older"], nobody, shared=True):
        os.utime(files["older"].with_suffix(".lock"), (NOW - 10_000,) * 2)
        cache.trim(tmp_path, 200, NOW)
    assert {name for name, path in files.items() if path.exists()} == {"older", "new"}


def test_who_waits_for_another_to_make_it_waits_no_longer_than_that(tmp_path: Path) -> None:
    path, begun, waits, used = tmp_path / "made", threading.Event(), threading.Event(), threading.Event()

    def make() -> None:
        begun.set()
        assert waits.wait(60)
        path.touch()

    def use_at_length() -> None:
        with cache.held(path, nobody, make):
            assert used.wait(60)

    maker = threading.Thread(target=use_at_length)
    maker.start()
    assert begun.wait(60)
    with cache.held(path, waits.set, nobody):
        assert maker.is_alive()  # it still uses what it made
    used.set()
    maker.join(60)


def test_a_use_makes_it_young_again(files: dict[str, Path], tmp_path: Path) -> None:
    assert cache.has(files["older"], nobody)
    assert not cache.has(tmp_path / "datasets/none-v1.safetensors", nobody)
    cache.trim(tmp_path, 200, files["older"].with_suffix(".lock").stat().st_mtime + 1)
    assert files["older"].exists()


def test_a_preparation_trims_and_the_next_one_makes_it_again(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", class_files())
    sources = [DatasetSource("mine", str(tmp_path), letter * 64, str(archive), cache_bytes=1) for letter in "ab"]
    paths = []
    for source in [*sources, sources[0]]:
        paths.append(datasets.prepare(source, threads=1, watch=lambda *_: None))
        assert paths[-1].exists()
        os.utime(paths[-1].with_suffix(".lock"), (0, 0))
    assert [path.exists() for path in paths] == [True, False, True]


def test_a_trainer_holds_its_data(tmp_path: Path) -> None:
    given = task(TrainConfig("digits", epochs=1000, checkpoint_every_epochs=1000), tmp_path, tmp_path / "scratch")
    path = cache.prepared(tmp_path, "digits")
    with Child(given) as child:
        child.until("first_step")
        os.utime(path.with_suffix(".lock"), (0, 0))
        cache.trim(tmp_path, 1, NOW)
        assert path.exists()
    cache.trim(tmp_path, 1, NOW)
    assert not path.exists()
