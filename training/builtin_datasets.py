"""The data sets that are known by name: digits ships with scikit-learn, the others are downloaded once."""

import functools
import hashlib
import importlib
import io
import threading
import warnings
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stoker.training import images, tensorfile
from stoker.training.class_folders import LabelledImages, Spooled
from stoker.training.failure import TrainingFailed
from stoker.training.layout import TEST_EVERY

CIFAR10_CLASSES = [
    "plane",
    "car",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]  # the tutorial's words
_LOADERS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_WATCH_SECONDS = 0.1
Array = NDArray[np.uint8]
T = TypeVar("T")


def read(name: str, downloads: Path, watch: Callable[[int, int], None]) -> LabelledImages:
    """Return a built-in data set; torchvision checks the MD5 of what it downloads.

    Raises TrainingFailed (``data_missing``) when the download fails.
    """
    watch(0, 0)
    if name == "digits":
        return _digits()
    # Loaded on first use: a worker that never prepares these keeps the memory they take.
    loader = getattr(importlib.import_module("torchvision.datasets"), _LOADERS[name])
    parts = {}
    for part in ("train", "test"):
        load = functools.partial(loader, root=str(downloads), train=part == "train", download=True)
        try:
            parts[part] = _watched(load, watch)
        except (OSError, RuntimeError) as error:
            raise TrainingFailed(
                "data_missing",
                f"{name} cannot be downloaded: {error}"[:300],
                f"put torchvision's files of {name} into {downloads}",
            ) from None
    classes = CIFAR10_CLASSES if name == "cifar10" else [str(label) for label in parts["train"].classes]
    arrays = {part: (_array(found.data), [int(label) for label in found.targets]) for part, found in parts.items()}
    return _labelled(classes, arrays)


def _watched(work: Callable[[], T], watch: Callable[[int, int], None]) -> T:
    """Do what takes minutes beside the watching; where ``watch`` raises, the thread ends with the process."""
    found: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # raised again where the result is asked for
            found.set_exception(error)

    threading.Thread(target=run, name="download", daemon=True).start()
    while not futures.wait([found], _WATCH_SECONDS).done:
        watch(0, 0)
    return found.result()


def _digits() -> LabelledImages:
    """1,797 digits of 8×8 in 17 shades, brought to 32×32×3; every fifth of each digit is a test image."""
    with warnings.catch_warnings():  # that a job has no semaphores of the system concerns nobody here
        warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode")
        bunch = importlib.import_module("sklearn.datasets").load_digits()
    small = np.asarray(bunch.images * (255 / 16), np.float64).round().astype(np.uint8)
    large = np.stack([images.resize(np.repeat(one[:, :, None], 3, axis=2), 32, 32) for one in small])
    labels = np.asarray(bunch.target)
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    arrays = {"train": (large[~is_test], labels[~is_test].tolist()), "test": (large[is_test], labels[is_test].tolist())}
    return _labelled([str(digit) for digit in range(10)], arrays)


def _array(data: Any) -> Array:
    """Return pixels (N, H, W, C) of what a loader holds: an array (N, H, W, 3) or a tensor (N, H, W)."""
    array = np.asarray(data, np.uint8)
    return array if array.ndim == 4 else array[:, :, :, None]


def _labelled(classes: list[str], arrays: dict[str, tuple[Array, list[int]]]) -> LabelledImages:
    spool, offset = io.BytesIO(), 0
    digest = hashlib.sha256("\n".join(classes).encode())
    spooled: dict[str, list[Spooled]] = {}
    for part, (array, labels) in arrays.items():
        digest.update(part.encode() + bytes(array.data if array.flags.c_contiguous else array.tobytes()))
        digest.update(np.asarray(labels, "<i8").tobytes())
        _, height, width, channels = array.shape
        spooled[part] = []
        for one in array:
            spooled[part].append(Spooled("", offset, height, width, b""))
            offset += tensorfile.write_all(spool, np.ascontiguousarray(one).data)
    shape = (channels, height, width)
    return LabelledImages(
        classes, {part: found[1] for part, found in arrays.items()}, spooled, shape, digest.hexdigest(), [], spool
    )
