"""Labelled images as one file of tensors in the cache: made once, mapped by every training after that."""

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stoker.quoting import quoted
from stoker.training import builtin_datasets, cache, class_folders, tensorfile
from stoker.training.config import BUILTIN_DATASETS, DatasetSource
from stoker.training.failure import TrainingFailed

_TYPES = {"U8": torch.uint8, "I64": torch.int64}
_NAMED_BAD_IMAGES = 100
_WATCH_IMAGES = 256
Watch = Callable[[int, int], None]  # (images done, images in all or 0), called often; may raise to stop the work


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images uint8 (N, C, H, W) with labels int64 (N,), the training and the test part, mapped from the file."""

    path: Path
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    digest: str  # of pixels, labels and names
    bad_images: tuple[str, ...]  # `name: problem`, the first hundred
    bad_count: int

    def check_bad_images(self, most: int) -> None:
        """Raise TrainingFailed if more images than ``most`` did not decode."""
        if self.bad_count > most:
            raise TrainingFailed(
                "data_corrupt",
                f"{self.bad_count} images do not decode: {'; '.join(self.bad_images[:5])}",
                f"mend or remove them, or allow them with max_bad_images: {self.bad_count}",
            )


def prepare(source: DatasetSource, *, threads: int, watch: Watch) -> Path:
    """Return the prepared file of a data set, making it if the cache does not have it.

    One process at a time makes a file; others wait for it. Raises TrainingFailed (``data_missing``,
    ``data_corrupt``), OSError (a full disk).
    """
    path = cache.prepared(Path(source.cache), _key(source))
    path.parent.mkdir(parents=True, exist_ok=True)

    def wait() -> None:  # another trainer makes the same file
        watch(0, 0)

    def make() -> None:
        _make(source, path, threads, watch)
        cache.trim(Path(source.cache), source.cache_bytes, time.time())

    with cache.held(path, wait, make):
        return path


def load(path: Path) -> Dataset:
    """Map a prepared file; raises TensorFileDamaged."""
    with path.open("rb") as file:
        header = tensorfile.read_header(file)
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    tensors = {
        one.name: mapped[header.data_start + one.begin : header.data_start + one.end]
        .view(_TYPES[one.dtype])
        .view(one.shape)
        for one in header.entries
    }
    about = json.loads(header.metadata["stoker"])
    return Dataset(
        path, **tensors, classes=tuple(about["classes"]), digest=about["digest"],
        bad_images=tuple(about["bad_images"]), bad_count=about["bad_count"],
    )  # fmt: skip


def _key(source: DatasetSource) -> str:
    """Return the name in the cache: the content decides it, never the name a user gave."""
    if source.source is None:
        if source.name not in BUILTIN_DATASETS:
            raise TrainingFailed(
                "data_missing", f"no data set {quoted(source.name)}", f"use {', '.join(BUILTIN_DATASETS)}"
            )
        return source.name
    digest = (source.digest or _digest_of(Path(source.source))).removeprefix("sha256:")
    if not (digest.isascii() and digest.isalnum() and len(digest) >= 16):
        raise TrainingFailed("data_missing", f"{quoted(digest, 80)} is no digest", "name the data set by its SHA-256")
    return digest


def _digest_of(source: Path) -> str:
    """Hash a file's bytes, or the names, sizes and times of a folder's files."""
    if not source.exists():
        raise TrainingFailed("data_missing", f"there is no {source}", "name an archive or a folder of class folders")
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        about = path.lstat()
        digest.update(f"{path.relative_to(source)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def _make(source: DatasetSource, path: Path, threads: int, watch: Watch) -> None:
    if source.source is None:
        downloads = Path(source.downloads) if source.downloads else Path(source.cache) / "downloads"
        images = builtin_datasets.read(source.name, downloads, watch)
    else:
        images = class_folders.read(Path(source.source), path.parent, threads, watch)
    with images:
        _write(path, images, source.name, watch)


def _write(path: Path, images: class_folders.LabelledImages, name: str, watch: Watch) -> None:
    labels = {part: np.asarray(images.labels[part], "<i8") for part in ("train", "test")}
    about = {
        "classes": images.classes,
        "digest": images.digest,
        "source": name,
        "bad_images": images.bad_images[:_NAMED_BAD_IMAGES],
        "bad_count": len(images.bad_images),
        "format": cache.FORMAT,
    }
    entries, position = [], 0
    for part in ("train", "test"):  # labels first: they need to stand at a multiple of 8 bytes
        entries.append(tensorfile.entry(f"{part}_labels", "I64", labels[part].shape, position))
        position = entries[-1].end
    for part in ("train", "test"):
        shape = (len(labels[part]), *images.shape)
        entries.append(tensorfile.entry(f"{part}_images", "U8", shape, position))
        position = entries[-1].end
    _check_room(path.parent, position)
    header = tensorfile.pack_header(entries, {"stoker": json.dumps(about)})
    tensorfile.write(path, header, _chunks(labels, images, watch))


def _chunks(
    labels: Mapping[str, NDArray[np.int64]], images: class_folders.LabelledImages, watch: Watch
) -> Iterable[memoryview]:
    yield from (labels[part].data for part in ("train", "test"))
    total, done = sum(map(len, labels.values())), itertools.count(1)
    for part in ("train", "test"):
        for pixels in images.pixels(part):
            yield pixels
            if (number := next(done)) % _WATCH_IMAGES == 0:
                watch(number, total)


def _check_room(folder: Path, needed_bytes: int) -> None:
    about = os.statvfs(folder)
    free = about.f_bavail * about.f_frsize
    if free < needed_bytes:
        raise TrainingFailed(
            "disk_full",
            f"the data set needs {needed_bytes:,} bytes of cache, {free:,} are free",
            "free space on the worker",
        )
