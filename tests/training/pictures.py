"""Small images, and archives and folders of them."""

import io
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

from stoker.training import datasets
from stoker.training.config import DatasetSource
from stoker.training.datasets import Dataset


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
