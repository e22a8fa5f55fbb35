"""Class folders -> labelled images of one size; ``layout`` says which folders those are."""

import collections
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from stoker.quoting import quoted
from stoker.training import archives, images, tensorfile
from stoker.training.archives import Member
from stoker.training.failure import TrainingFailed
from stoker.training.images import BadImage, Pixels
from stoker.training.layout import TEST_EVERY, Layout

MAX_CLASSES = 65_535  # a prediction keeps its class in 16 bits
MAX_NAME = 500  # characters of a class's name
MAX_NAMES_BYTES = 10**7  # of all names as JSON: a result holds them twice, and must stay below 32 MB
_BATCH_MEMBERS, _BATCH_BYTES = 256, 64 * 10**6  # decoded at a time


@dataclass(frozen=True, slots=True)
class Spooled:
    """A decoded image in the temporary file."""

    name: str
    offset: int
    height: int
    width: int
    digest: bytes  # of its pixels


@dataclass(slots=True)
class LabelledImages:
    """All images of a data set, in order; the pixels lie in a temporary file without a name."""

    classes: list[str]
    labels: dict[str, list[int]]  # part -> labels
    spooled: dict[str, list[Spooled]]  # part -> images, as long as the labels
    shape: tuple[int, int, int]  # (C, H, W) of every image
    digest: str
    bad_images: list[str] = field(default_factory=list)  # `name: problem`
    spool: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.spool:
            self.spool.close()

    def pixels(self, part: str) -> Iterator[memoryview]:
        """Yield the pixels of each image of a part, (C, H, W), brought to the common size."""
        channels, height, width = self.shape
        for one in self.spooled[part]:
            pixels = _read(self.spool, one, channels)
            if (one.height, one.width) != (height, width):
                pixels = images.resize(pixels, height, width)
            yield np.ascontiguousarray(pixels.transpose(2, 0, 1)).data


def read(source: Path, folder: Path, threads: int, watch: Callable[[int, int], None]) -> LabelledImages:
    """Decode an archive or a folder, keeping the pixels in a temporary file in ``folder``.

    Raises TrainingFailed: ``data_missing`` (no images, one class), ``data_corrupt`` (a hostile archive).
    """
    spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by LabelledImages
    try:
        good, bad = _decode_all(source, spool, threads, watch)
        spool.flush()
        return _arranged(good, bad, spool)
    except BaseException:
        spool.close()
        raise


def _arranged(good: list[Spooled], bad: dict[str, str], spool: BinaryIO) -> LabelledImages:
    place = _layout(good).place
    parts = _split(place, good)
    classes = _classes(parts)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = {part: [numbers[label] for label, _ in found] for part, found in parts.items()}
    spooled = {part: [one for _, one in found] for part, found in parts.items()}
    named = [f"{name}: {problem}" for name, problem in sorted(bad.items()) if place(name)]
    return LabelledImages(classes, labels, spooled, _shape(spooled), _digest(parts, classes), named, spool)


def _decode_all(
    source: Path, spool: BinaryIO, threads: int, watch: Callable[[int, int], None]
) -> tuple[list[Spooled], dict[str, str]]:
    good: list[Spooled] = []
    bad: dict[str, str] = {}
    offset = 0
    with ThreadPoolExecutor(threads) as pool:
        run = pool.map if threads > 1 else map
        for batch, total in _batches(archives.members(source)):
            for member, pixels in zip(batch, run(_decode, batch), strict=True):
                if isinstance(pixels, str):
                    bad[member.name] = pixels
                    continue
                raw = np.ascontiguousarray(pixels).data
                height, width, _ = pixels.shape
                good.append(Spooled(member.name, offset, height, width, hashlib.sha256(raw).digest()))
                offset += tensorfile.write_all(spool, raw)
            watch(len(good) + len(bad), total)
    return good, bad


def _decode(member: Member) -> Pixels | str:
    if member.problem:
        return member.problem
    try:
        return images.decode(member.content)
    except BadImage as error:
        return str(error)


def _batches(members: Iterable[tuple[Member, int]]) -> Iterator[tuple[list[Member], int]]:
    batch: list[Member] = []
    size = total = 0
    for member, total in members:
        batch.append(member)
        size += len(member.content)
        if len(batch) >= _BATCH_MEMBERS or size >= _BATCH_BYTES:
            yield batch, total
            batch, size = [], 0
    yield batch, total


def _read(spool: BinaryIO | None, one: Spooled, channels: int) -> Pixels:
    assert spool is not None  # only images that were spooled have pixels to read  # noqa: S101
    spool.seek(one.offset)
    raw = spool.read(one.height * one.width * channels)
    return np.frombuffer(raw, np.uint8).reshape(one.height, one.width, channels)


def _layout(good: list[Spooled]) -> Layout:
    found = Layout.of(one.name for one in good)
    if found is None:
        raise TrainingFailed("data_missing", "no image lies in a class folder", "name files CLASS/image.jpg")
    return found


def _split(place: Callable[[str], tuple[str, str] | None], good: list[Spooled]) -> dict[str, list[tuple[str, Spooled]]]:
    """Return part -> (class, image), ordered by class and name."""
    found: dict[str, list[tuple[str, Spooled]]] = {"train": [], "test": [], "all": []}
    for one in sorted(good, key=lambda image: image.name):
        where = place(one.name)
        if where:
            found[where[0]].append((where[1], one))
    undivided = found.pop("all") or (found["train"] if not found["test"] else [])
    if undivided:
        found = {"train": [], "test": []}
        for _, group in itertools.groupby(sorted(undivided, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
            for index, pair in enumerate(group):
                found["test" if index % TEST_EVERY == TEST_EVERY - 1 else "train"].append(pair)
    return found


def _classes(parts: dict[str, list[tuple[str, Spooled]]]) -> list[str]:
    classes = sorted({label for label, _ in parts["train"]})
    if len(classes) < 2:
        found = f"only one class, {quoted(classes[0])}" if classes else "no image that decodes"
        raise TrainingFailed("data_missing", f"{found} in the training part", "give images of two or more classes")
    if not parts["test"]:
        raise TrainingFailed("data_missing", "no test images", "add test/CLASS/…, or five images or more a class")
    untrained = sorted({label for label, _ in parts["test"]} - set(classes))
    if untrained:
        raise TrainingFailed(
            "data_missing", f"no training images of class {quoted(untrained[0])}", "add some, or remove its test images"
        )
    if len(classes) > MAX_CLASSES:
        raise TrainingFailed("data_corrupt", f"{len(classes):,} classes", f"use at most {MAX_CLASSES:,}")
    longest = max(classes, key=len)
    if len(longest) > MAX_NAME or len(json.dumps(classes)) > MAX_NAMES_BYTES:
        evidence = f"the names of the classes are too long, {quoted(longest, 100)} has {len(longest)} characters"
        raise TrainingFailed("data_corrupt", evidence, f"shorten them, to at most {MAX_NAME} each")
    return classes


def _shape(spooled: dict[str, list[Spooled]]) -> tuple[int, int, int]:
    """Return the size that most images have; of two as frequent ones the larger."""
    sizes = collections.Counter((one.height, one.width) for part in spooled.values() for one in part)
    (height, width), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    return 3, height, width


def _digest(parts: dict[str, list[tuple[str, Spooled]]], classes: list[str]) -> str:
    digest = hashlib.sha256("\n".join(classes).encode(errors="surrogatepass"))
    for part, found in parts.items():
        for label, one in found:
            digest.update(f"\0{part}\0{label}\0".encode(errors="surrogatepass") + one.digest)
    return digest.hexdigest()
