"""Archives and folders of images become tensors; hostile ones become one clear sentence."""

import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stoker.training import archives, datasets, images
from stoker.training.config import DatasetSource
from stoker.training.datasets import Dataset
from stoker.training.failure import TrainingFailed
from stoker.training.images import BadImage

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10-jpeg.zip"


def picture(shade: int, size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """An image file of one shade."""
    buffer = io.BytesIO()
    Image.new(mode, size, shade if mode in ("L", "I;16") else (shade,) * len(mode)).save(buffer, kind)
    return buffer.getvalue()


def class_files(per_class: int = 5, top: str = "") -> dict[str, bytes]:
    """`cat/0.png` …, `dog/0.png` …: shades 0 to 9 for cats, 100 to 109 for dogs."""
    return {
        f"{top}{name}/{number}.png": picture(start + number)
        for name, start in (("cat", 0), ("dog", 100))
        for number in range(per_class)
    }


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a text here
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def unpacked(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def prepared(source: Path, cache: Path, threads: int = 1) -> Dataset:
    given = DatasetSource("mine", str(cache), source=str(source))
    return datasets.load(datasets.prepare(given, threads=threads, watch=lambda *_: None))


FORMS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "zip": zipped,
    "tar.gz": tarred,
    "tar": lambda path, files: tarred(path, files, "w"),
    "tar.xz": lambda path, files: tarred(path, files, "w:xz"),
    "folder": unpacked,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_gives_the_same_data(form: str, tmp_path: Path) -> None:
    found = prepared(FORMS[form](tmp_path / "data", class_files()), tmp_path / "cache")
    assert found.classes == ("cat", "dog")
    assert found.train_images.shape == (8, 3, 8, 8)
    assert found.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert found.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found.test_images[:, 0, 0, 0].tolist() == [4, 104]  # the fifth of each class, by name
    assert found.digest == prepared(unpacked(tmp_path / "plain", class_files()), tmp_path / "other").digest


@pytest.mark.parametrize("top", ["", "my set/", "a/b/"])
def test_train_and_test_folders_are_kept_apart(top: str, tmp_path: Path) -> None:
    files = {**class_files(2, f"{top}train/"), **class_files(1, f"{top}test/"), f"{top}README.txt": b"hello"}
    found = prepared(zipped(tmp_path / "a.zip", files), tmp_path)
    assert (len(found.train_labels), len(found.test_labels), found.bad_count) == (4, 2, 0)


def test_the_second_call_reads_nothing_again(tmp_path: Path) -> None:
    source = DatasetSource("mine", str(tmp_path), "sha256:" + "a" * 64, str(zipped(tmp_path / "a.zip", class_files())))
    first = datasets.prepare(source, threads=1, watch=lambda *_: None)
    before = first.stat().st_mtime_ns
    (tmp_path / "a.zip").unlink()
    assert datasets.prepare(source, threads=1, watch=lambda *_: None) == first
    assert first.stat().st_mtime_ns == before
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".lock", ".safetensors"]


def test_two_at_once_make_one_file(tmp_path: Path) -> None:
    source = DatasetSource("mine", str(tmp_path), source=str(zipped(tmp_path / "a.zip", class_files(40))))
    found: list[Path] = []
    both = [
        threading.Thread(target=lambda: found.append(datasets.prepare(source, threads=1, watch=lambda *_: None)))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1
    assert len(datasets.load(found[0]).train_labels) == 64


def test_threads_change_nothing(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", class_files(300 // 2))
    assert prepared(source, tmp_path / "one").digest == prepared(source, tmp_path / "two", threads=3).digest


def test_an_image_that_does_not_decode_is_named_and_counted(tmp_path: Path) -> None:
    whole = picture(7)
    files = {
        **class_files(),
        "cat/broken.png": whole[: len(whole) // 2],
        "dog/page.jpg": b"<svg/>",
        "dog/inner.zip": b"PK",
    }
    found = prepared(zipped(tmp_path / "a.zip", files), tmp_path)
    assert found.bad_count == 3
    assert [text.split(":")[0] for text in found.bad_images] == ["cat/broken.png", "dog/inner.zip", "dog/page.jpg"]
    found.check_bad_images(3)
    with pytest.raises(TrainingFailed, match=r"3 images do not decode: cat/broken.png.*max_bad_images: 3"):
        found.check_bad_images(2)


def test_a_wrong_crc_spoils_one_image_only(tmp_path: Path) -> None:
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_STORED) as archive:
        for name, content in class_files().items():
            archive.writestr(name, content)
    content = source.read_bytes()
    source.write_bytes(content.replace(picture(2), picture(2)[:-20] + bytes(20), 1))
    assert prepared(source, tmp_path).bad_count == 1


def test_images_of_other_sizes_are_brought_to_that_of_most(tmp_path: Path) -> None:
    files = {**class_files(), "cat/wide.png": picture(50, (20, 10))}
    assert prepared(zipped(tmp_path / "a.zip", files), tmp_path).train_images.shape == (9, 3, 8, 8)


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
    "zip: cut in half": lambda path: path if path.write_bytes(zipped(path, HARMLESS).read_bytes()[:900]) else path,
    "zip: directory damaged": lambda path: (
        path if path.write_bytes(zipped(path, HARMLESS).read_bytes().replace(b"PK\x01\x02", b"PK\x09\x09", 3)) else path
    ),
    "tar: parent folder": lambda path: tar_of(path, tarfile.TarInfo("cat/../../x.png")),
    "tar: absolute": lambda path: tar_of(path, tarfile.TarInfo("/cat/x.png")),
    "tar: symbolic link": lambda path: tar_of(path, link("cat/x.png", tarfile.SYMTYPE)),
    "tar: hard link": lambda path: tar_of(path, link("cat/x.png", tarfile.LNKTYPE)),
    "tar: device": lambda path: tar_of(path, link("cat/x.png", tarfile.CHRTYPE)),
    "tar: fifo": lambda path: tar_of(path, link("cat/x.png", tarfile.FIFOTYPE)),
    "tar: header of 2 MB": long_header,
    "tar: bomb": lambda path: tarred(path, {**HARMLESS, "cat/bomb.png": bytes(70_000_000)}, "w:gz"),
    "tar: cut": lambda path: path if path.write_bytes(tarred(path, HARMLESS).read_bytes()[:-200]) else path,
    "text": lambda path: path if path.write_bytes(b"hello " * 400) else path,
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


EMPTY: dict[str, dict[str, bytes]] = {
    "no files": {},
    "no class folders": {"a.png": picture(1), "b.png": picture(2)},
    "one class": {f"cat/{number}.png": picture(number) for number in range(9)},
    "nothing decodes": {"cat/a.png": b"x", "dog/b.png": b"y"},
    "no test images": {f"{name}/{number}.png": picture(number) for name in ("cat", "dog") for number in range(3)},
    "a test class without training images": {**class_files(3, "train/"), "test/cow/1.png": picture(1)},
    "hidden files only": {"__MACOSX/cat/._a.png": b"x", ".git/dog/b.png": b"y"},
}


@pytest.mark.parametrize("name", list(EMPTY))
def test_data_without_enough_in_them_are_missing_data(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed) as caught:
        prepared(zipped(tmp_path / "a.zip", EMPTY[name]), tmp_path)
    assert caught.value.failure_class == "data_missing"


@pytest.mark.parametrize("source", ["/no/such/folder", ""])
def test_a_source_that_is_not_there_is_missing_data(source: str, tmp_path: Path) -> None:
    given = DatasetSource("mine", str(tmp_path), "a" * 64, source or str(tmp_path / "empty"))
    with pytest.raises(TrainingFailed) as caught:
        datasets.prepare(given, threads=1, watch=lambda *_: None)
    assert caught.value.failure_class == "data_missing"


def test_a_name_or_digest_never_becomes_a_path(tmp_path: Path) -> None:
    for given in (
        DatasetSource("../../etc", str(tmp_path)),
        DatasetSource("mine", str(tmp_path), "../../../etc/passwd-and-more", str(tmp_path)),
    ):
        with pytest.raises(TrainingFailed):
            datasets.prepare(given, threads=1, watch=lambda *_: None)


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "data", class_files())
    os.symlink("/etc/hostname", folder / "cat/secret.png")
    assert prepared(folder, tmp_path / "cache").bad_count == 0


def test_too_many_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 9)
    with pytest.raises(TrainingFailed, match="more than 9 files"):
        prepared(zipped(tmp_path / "a.zip", HARMLESS), tmp_path)


def test_images_are_converted_in_a_defined_way() -> None:
    sixteen = io.BytesIO()
    Image.fromarray(np.full((4, 4), 0x8123, np.uint16)).save(sixteen, "PNG")
    assert images.decode(sixteen.getvalue())[0, 0].tolist() == [0x81] * 3
    assert images.decode(picture(9, kind="PNG", mode="L"))[0, 0].tolist() == [9] * 3
    assert images.decode(picture(9, kind="PNG", mode="RGBA"))[0, 0].tolist() == [9] * 3
    assert images.decode(picture(0, kind="JPEG", mode="CMYK")).shape == (8, 8, 3)
    frames = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(
        frames, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 4), (0, 0, 255))]
    )
    assert images.decode(frames.getvalue())[0, 0].tolist() == [255, 0, 0]  # the first frame
    assert images.decode(picture(1, (1000, 300), "JPEG")).shape == (224, 224, 3)


def test_a_photograph_is_turned_as_its_exif_says() -> None:
    upright = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", exif=exif)
    assert images.decode(buffer.getvalue()).shape == (8, 4, 3)


BAD_IMAGES = {
    "empty": b"",
    "text": b"hello",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "tiff": picture(1, kind="TIFF"),
    "cut": picture(1, (200, 200), "JPEG")[:-100],
    "bomb": picture(0, (8000, 8000), "PNG", "L"),
}


@pytest.mark.parametrize("name", list(BAD_IMAGES))
def test_what_is_no_image_says_why(name: str) -> None:
    with pytest.raises(BadImage) as caught:
        images.decode(BAD_IMAGES[name])
    assert str(caught.value)


def test_the_digits_are_always_the_same(cache: Path, tmp_path: Path) -> None:
    given = DatasetSource("digits", str(tmp_path))
    again = datasets.load(datasets.prepare(given, threads=1, watch=lambda *_: None))
    first = datasets.load(cache / "datasets/digits-v1.safetensors")
    assert again.digest == first.digest
    assert torch.equal(again.train_images, first.train_images)
    assert (len(first.train_labels), len(first.test_labels)) == (1442, 355)
    assert first.train_images.shape[1:] == (3, 32, 32)


@pytest.mark.dataset
def test_real_photographs(tmp_path: Path) -> None:
    """A few classes of CIFAR-10 where it lies beside the checkout, else drawn images."""
    source = tmp_path / "a.zip"
    if CIFAR.exists():
        with zipfile.ZipFile(CIFAR) as archive:
            names = [n for n in archive.namelist() if n.split("/")[1] in ("cat", "ship") and n.endswith("00.jpg")]
            zipped(source, {name: archive.read(name) for name in names})
    else:
        zipped(source, {**class_files(50, "train/"), **class_files(10, "test/")})
    found = prepared(source, tmp_path)
    assert (len(found.train_labels), len(found.test_labels)) == (100, 20)
    assert found.bad_count == 0
