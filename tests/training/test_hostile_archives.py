"""Hostile archives become one clear sentence, and leave nothing behind."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.training import archives
from stoker.training.failure import TrainingFailed
from tests.training.pictures import class_files, prepared, tarred, zipped

HARMLESS = class_files()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def tar_of(path: Path, *infos: tarfile.TarInfo) -> Path:
    tarred(path, HARMLESS, "w")
    with tarfile.open(path, "a") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return path


def zip_with(path: Path, name: str, content: bytes = b"", mode: int = 0) -> Path:
    zipped(path, HARMLESS)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def encrypted(path: Path) -> Path:
    content = bytearray(zipped(path, HARMLESS).read_bytes())
    central = content.index(b"PK\x01\x02")
    content[central + 8] |= 1
    path.write_bytes(content)
    return path


def overlapping(path: Path) -> Path:
    """Two names in the directory whose bytes are the same."""
    content = bytearray(zipped(path, HARMLESS).read_bytes())
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)
    return path


def long_header(path: Path) -> Path:
    info = tarfile.TarInfo("cat/x.png")
    info.pax_headers = {"comment": "x" * 2_000_000}
    return tar_of(path, info)


def twice(path: Path) -> Path:
    zipped(path, HARMLESS)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/0.png", b"again")
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "zip: parent folder": lambda path: zip_with(path, "cat/../../evil.png"),
    "zip: absolute": lambda path: zip_with(path, "/etc/evil.png"),
    "zip: backslash": lambda path: zip_with(path, "cat\\..\\evil.png"),
    "zip: drive": lambda path: zip_with(path, "C:evil.png"),
    "zip: newline": lambda path: zip_with(path, "cat/a\nb.png"),
    "zip: symbolic link": lambda path: zip_with(path, "cat/link.png", b"/etc/passwd", stat.S_IFLNK | 0o777),
    "zip: encrypted": encrypted,
    "zip: twice the same name": twice,
    "zip: overlapping": overlapping,
    "zip: bomb": lambda path: zip_with(path, "cat/bomb.png", bytes(70_000_000)),
    "zip: cut in half": lambda path: written(path, zipped(path, HARMLESS).read_bytes()[:900]),
    "zip: directory damaged": lambda path: written(
        path, zipped(path, HARMLESS).read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09", 3)
    ),
    "tar: parent folder": lambda path: tar_of(path, tarfile.TarInfo("cat/../../x.png")),
    "tar: absolute": lambda path: tar_of(path, tarfile.TarInfo("/cat/x.png")),
    "tar: symbolic link": lambda path: tar_of(path, link("cat/x.png", tarfile.SYMTYPE)),
    "tar: hard link": lambda path: tar_of(path, link("cat/x.png", tarfile.LNKTYPE)),
    "tar: device": lambda path: tar_of(path, link("cat/x.png", tarfile.CHRTYPE)),
    "tar: fifo": lambda path: tar_of(path, link("cat/x.png", tarfile.FIFOTYPE)),
    "tar: header of 2 MB": long_header,
    "tar: bomb": lambda path: tarred(path, {**HARMLESS, "cat/bomb.png": bytes(70_000_000)}, "w:gz"),
    "tar: cut": lambda path: written(path, tarred(path, HARMLESS).read_bytes()[:-200]),
    "text": lambda path: written(path, b"hello " * 400),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_archive_is_corrupt_data(name: str, tmp_path: Path) -> None:
    source = HOSTILE[name](tmp_path / "data")
    with pytest.raises(TrainingFailed) as caught:
        prepared(source, tmp_path / "cache")
    assert caught.value.failure_class == "data_corrupt"
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache/datasets").glob("*.safetensors"))
    assert not list((tmp_path / "cache/datasets").glob("*.partial"))


def test_too_many_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 9)
    with pytest.raises(TrainingFailed, match="more than 9 files"):
        prepared(zipped(tmp_path / "a.zip", HARMLESS), tmp_path)
