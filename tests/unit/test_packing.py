"""What of a folder becomes the code of a job, and what is refused before anything is sent."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from stoker.client.packing import Packed, pack
from stoker.client.programs import check_command, check_notebook
from stoker.errors import InvalidInput

MEGABYTE = 10**6


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def names(packed: Packed) -> list[str]:
    return [file.path for file in packed.files]


def test_without_git_everything_is_taken_but_what_is_ignored(tmp_path: Path) -> None:
    files = {
        "train.py": "",
        "data/a.csv": "1",
        "data/keep.csv": "2",
        ".hidden": "",
        "__pycache__/a.pyc": "",
        ".git/x": "",
    }
    folder = folder_of(tmp_path, files | {".stokerignore": "data/*\n!data/keep.csv\n# a comment\n"})
    packed = pack(folder, MEGABYTE)
    assert names(packed) == [".hidden", ".stokerignore", "data/keep.csv", "train.py"]
    assert packed.git is None


def test_what_git_tracks_and_what_is_new_is_taken(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "repo", {"a.py": "1", "gone.py": "", ".gitignore": "*.log\n", "x.log": "", "sub/b.py": ""}
    )
    git(folder, "init")
    assert pack(folder, MEGABYTE).git is None  # no commit yet
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    clean = pack(folder, MEGABYTE)
    assert clean.git is not None
    assert (clean.git["branch"], clean.git["dirty"], clean.git["diff"]) == ("main", False, "")
    (folder / "gone.py").unlink()
    (folder / "new é.py").write_text("2")
    (folder / "a.py").write_text("3")
    packed = pack(folder, MEGABYTE)
    assert names(packed) == [".gitignore", "a.py", "new é.py", "sub/b.py"]
    assert packed.git is not None
    assert (packed.git["commit"], packed.git["dirty"]) == (clean.git["commit"], True)
    assert "-1\n" in packed.git["diff"]
    assert names(pack(folder / "sub", MEGABYTE)) == ["b.py"]


def test_the_same_files_are_the_same_bytes_and_digest_anywhere(tmp_path: Path) -> None:
    one, two = (pack(folder_of(tmp_path / name, {"b.py": "x", "a/é.py": "y"}), MEGABYTE) for name in ("one", "second"))
    content = b"".join(one.pieces())
    assert (one.code, content) == (two.code, b"".join(two.pieces()))
    assert len(content) == one.size
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["a/é.py", "b.py"]
    (two.folder / "b.py").chmod(0o755)
    assert pack(two.folder, MEGABYTE).code != one.code


def test_a_link_to_a_file_inside_is_that_file(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.txt": "text"})
    (folder / "b.txt").symlink_to("a.txt")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(folder, MEGABYTE).pieces()))) as archive:
        found = {member.name: member.isreg() and archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {"a.txt": b"text", "b.txt": b"text"}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/etc/hostname", "b is a link that leads out"),
        ("nowhere", "b is a link to no file"),
        (".", "b is a link to no file"),
    ],
)
def test_other_links_are_refused(tmp_path: Path, target: str, words: str) -> None:
    (folder_of(tmp_path, {"a.txt": ""}) / "b").symlink_to(target)
    with pytest.raises(InvalidInput, match=words):
        pack(tmp_path, MEGABYTE)
    (tmp_path / ".stokerignore").write_text("b\n")
    assert names(pack(tmp_path, MEGABYTE)) == [".stokerignore", "a.txt"]


def test_what_cannot_be_sent_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is no folder"):
        pack(tmp_path / "nowhere", MEGABYTE)
    with pytest.raises(InvalidInput, match="holds no files"):
        pack(tmp_path, MEGABYTE)
    (tmp_path / "a\nb").write_text("")
    with pytest.raises(InvalidInput, match=r"'a\\u000ab' holds the unprintable character U\+000A"):
        pack(tmp_path, MEGABYTE)
    (tmp_path / "a\nb").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="pipe is no plain file"):
        pack(tmp_path, MEGABYTE)


def test_too_much_is_refused_before_it_is_read_and_the_largest_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path, {"train.py": "x"})
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "images.bin").open("wb") as file:
        file.truncate(5 * 10**9)
    with pytest.raises(
        InvalidInput, match=r"holds 5,000\.0 MB, more than 1 MB; largest: .*data/images\.bin \(5,000\.0 MB\)"
    ):
        pack(tmp_path, MEGABYTE)


def test_a_file_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    packed = pack(folder_of(tmp_path, {"a.py": "1234"}), MEGABYTE)
    (tmp_path / "a.py").write_text("1")
    with pytest.raises(InvalidInput, match="changed while it was read"):
        list(packed.pieces())


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "is missing; write it after two dashes"),
        (["python", "tain.py"], "there is no file tain.py"),
        (["python", "-u", "broken.py"], "broken.py, line 2: "),
        (["python3", "ignored.py"], "ignored.py is ignored"),
        (["./run.sh"], "./run.sh is not executable; chmod \\+x run.sh"),
        (["bin/nothing"], "there is no file bin/nothing"),
    ],
)
def test_a_command_that_cannot_start_is_refused(tmp_path: Path, command: list[str], words: str) -> None:
    files = {
        "train.py": "print(1)",
        "broken.py": "a = 1\nb = = 2\n",
        "ignored.py": "",
        "run.sh": "",
        ".stokerignore": "ig*",
    }
    packed = pack(folder_of(tmp_path, files), MEGABYTE)
    with pytest.raises(InvalidInput, match=words):
        check_command(packed, command)


@pytest.mark.parametrize(
    "command",
    [
        ["python", "./train.py", "x"],
        ["python", "-m", "train"],
        ["python", "-c", "1"],
        ["sh", "-c", "true"],
        ["/bin/true"],
    ],
)
def test_what_cannot_be_known_here_is_left_to_the_worker(tmp_path: Path, command: list[str]) -> None:
    check_command(pack(folder_of(tmp_path, {"train.py": "print(1)"}), MEGABYTE), command)


def test_what_is_no_notebook_of_python_is_refused(tmp_path: Path) -> None:
    julia = {"cells": [], "metadata": {"kernelspec": {"language": "julia"}}}
    files = {"text.ipynb": "hello", "list.ipynb": "[]", "julia.ipynb": json.dumps(julia), "good.ipynb": '{"cells": []}'}
    packed = pack(folder_of(tmp_path, files), MEGABYTE)
    check_notebook(packed, "good.ipynb")
    for name, words in {
        "none.ipynb": "there is no file",
        "text.ipynb": "is not a notebook: no JSON",
        "list.ipynb": "it has no cells",
        "julia.ipynb": "is a notebook of julia",
    }.items():
        with pytest.raises(InvalidInput, match=words):
            check_notebook(packed, name)
