"""What a job hands over is opened and removed below its folder alone, whatever it makes of that folder meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.workers import handover


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job's folder, beside a secret."""
    (tmp_path / "secret").write_text("secret")
    made = tmp_path / "scratch"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "file").write_text("its own")
    return made


def test_a_file_below_the_folder_is_opened_and_removed(folder: Path) -> None:
    with os.fdopen(handover.open_file(folder, "deep/file")) as file:
        assert file.read() == "its own"
    handover.remove(folder, "deep/file")
    handover.remove(folder, "deep/file")
    assert list((folder / "deep").iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        *("../secret", "deep/../../secret", "/etc/passwd", "", ".", "deep//file", "deep/", "de\0ep"),
        *("link", "out/secret", "folder", "pipe", "missing", "deep/file/more"),
    ],
)
def test_nothing_else_is_opened(folder: Path, path: str) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "out").symlink_to(folder.parent, target_is_directory=True)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(OSError, match=r".+"):
        handover.open_file(folder, path)


@pytest.mark.parametrize("path", ["../secret", "out/secret", "folder"])
def test_nothing_outside_is_removed(folder: Path, path: str) -> None:
    (folder / "out").symlink_to(folder.parent, target_is_directory=True)
    (folder / "folder").mkdir()
    with pytest.raises(OSError, match=r".+"):
        handover.remove(folder, path)
    assert (folder.parent / "secret").read_text() == "secret"


def test_a_link_is_removed_itself(folder: Path) -> None:
    (folder / "link").symlink_to(folder.parent / "secret")
    handover.remove(folder, "link")
    assert not (folder / "link").is_symlink()
    assert (folder.parent / "secret").exists()


@pytest.mark.parametrize("act", [handover.open_file, handover.remove])
def test_a_folder_that_becomes_a_link_on_the_way_leads_nowhere(
    folder: Path, act: Callable[[Path, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap comes at the worst moment: just before the last folder of the path is opened."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("of another team")
    real = os.open

    def swapping(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "deep":
            (folder / "deep").rename(folder / "aside")
            (folder / "deep").symlink_to(outside, target_is_directory=True)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(OSError, match=r".+"):
        act(folder, "deep/file")
    assert (outside / "file").read_text() == "of another team"


def test_a_folder_that_is_swapped_once_it_is_open_stays_the_one_that_was_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("of another team")
    real = os.unlink

    def swapping(path: str, *, dir_fd: int | None = None) -> None:
        (folder / "deep").rename(folder / "aside")
        (folder / "deep").symlink_to(outside, target_is_directory=True)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", swapping)
    handover.remove(folder, "deep/file")
    assert list((folder / "aside").iterdir()) == []
    assert (outside / "file").read_text() == "of another team"
