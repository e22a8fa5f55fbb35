"""Files of own code: unpacked within their folder, and what is left found without following anything."""

import io
import tarfile
from pathlib import Path

import pytest

from stoker.errors import DataDamaged
from stoker.workers import outputs, unpacking
from tests.support.own_code import tar_of


def nothing() -> None:
    """Nobody has asked for anything."""


def test_outputs_are_plain_files_within_limits(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(bytes(60))
    (folder / "deep" / "b").write_bytes(bytes(60))
    (folder / "deep" / "c").write_bytes(bytes(30))
    with (folder / "sparse").open("wb") as sparse:
        sparse.truncate(100 * 10**9)
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    found = outputs.find(folder, limit_bytes=100)
    assert found.paths == ("a", "deep/c")
    assert len(found.notes) == 3
    assert "100,000,000,000 bytes" in "".join(found.notes)


def test_refused_outputs_are_named_up_to_a_limit(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}\n").touch()
    found = outputs.find(tmp_path, 10**9)
    assert found.paths == ()
    assert found.notes[-1] == "15 more outputs were not kept"


def test_of_an_absent_output_folder_nothing_is_found(tmp_path: Path) -> None:
    assert outputs.find(tmp_path / "missing", 1).paths == ()


def test_of_an_output_folder_that_became_a_link_not_even_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "of another team").touch()
    folder = tmp_path / "output"
    folder.symlink_to(tmp_path, target_is_directory=True)
    found = outputs.find(folder, 10**9)
    assert found.paths == ()
    assert "another team" not in "".join(found.notes)


def test_code_is_unpacked_with_its_modes(tmp_path: Path) -> None:
    archive, folder = tmp_path / "code.tar", tmp_path / "work"
    archive.write_bytes(tar_of({"run.sh": "#!/bin/sh\n", "inner/data.csv": "1"}, executable=("run.sh",)))
    folder.mkdir()
    unpacking.unpack_code(archive, folder, nothing)
    assert (folder / "inner" / "data.csv").read_text() == "1"
    assert [(folder / name).stat().st_mode & 0o777 for name in ("run.sh", "inner/data.csv")] == [0o755, 0o644]


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b", "a//b"])
def test_code_whose_names_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    archive, folder = tmp_path / "code.tar", tmp_path / "work"
    archive.write_bytes(tar_of({name: "x"}))
    folder.mkdir()
    with pytest.raises(DataDamaged):
        unpacking.unpack_code(archive, folder, nothing)
    assert list(folder.rglob("*.*")) == []


def test_a_data_set_whose_names_no_disk_can_hold_together_is_unpacked_without_some(tmp_path: Path) -> None:
    archive, folder = tmp_path / "set.tar", tmp_path / "tree"
    archive.write_bytes(tar_of({"a": "1", "a/b": "2", "c/d": "3", "c": "4", "x" * 300: "5", "e": "6"}))
    folder.mkdir()
    left_out = unpacking.unpack_dataset(archive, folder, nothing)
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "e" in kept
    assert len(kept) == 3
    assert len(left_out) == 3


def test_code_with_links_or_no_archive_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for content in (made.getvalue(), b"no tar" * 1000):
        (tmp_path / "code.tar").write_bytes(content)
        with pytest.raises(DataDamaged):
            unpacking.unpack_code(tmp_path / "code.tar", tmp_path, nothing)
