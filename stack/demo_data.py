"""Which images the demo trains on: yours, CIFAR-10, or the digits that are always there."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from stoker.errors import SettingInvalid
from stoker.settings import Settings

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # what torchvision checks too
CIFAR10_FILE = "cifar-10-python.tar.gz"
SILENCE_SECONDS = 5.0  # of a server, before digits are taken instead
CONNECT_SECONDS = 2.0
DOWNLOAD_SECONDS = 300.0
DIGITS_EPOCHS = 10  # 1,442 small images: two epochs teach next to nothing, ten give about 97 %
Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class DemoData:
    """A data set for the demo."""

    name: str
    upload: Path | None  # an archive or folder that is sent through the API; None: built in
    why: str  # one sentence for the user
    epochs: int


def choose(settings: Settings, progress: Progress) -> DemoData:
    """STOKER_DEMO_DATA; else CIFAR-10 from the cache or downloaded; else digits.

    Args:
        settings: Of the demo's own stack.
        progress: Called while CIFAR-10 is downloaded.

    Raises SettingInvalid: STOKER_DEMO_DATA names nothing that can be read.
    """
    if settings.demo_data is not None:
        return _own(settings.demo_data)
    archive = settings.cache / "downloads" / CIFAR10_FILE
    if archive.exists():
        return DemoData("cifar10", None, f"CIFAR-10 from the cache ({archive})", 2)
    try:
        download(CIFAR10_URL, CIFAR10_MD5, archive, progress)
    except (httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        why = f"scikit-learn's handwritten digits, for CIFAR-10 could not be downloaded ({reason})"
        return DemoData("digits", None, why, DIGITS_EPOCHS)
    return DemoData("cifar10", None, f"CIFAR-10, downloaded into {archive.parent}", 2)


def _own(path: Path) -> DemoData:
    if not path.exists():
        raise SettingInvalid("STOKER_DEMO_DATA", f"there is no {path}", "name a folder or archive of class folders")
    stem = path.name if path.is_dir() else path.name.split(".")[0]
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem.lower())
    return DemoData(f"demo-{letters}"[:100], path, f"{path} (STOKER_DEMO_DATA)", 2)


def download(url: str, md5: str, target: Path, progress: Progress) -> None:
    """Fetch a file whole and unchanged, or not at all.

    Raises httpx.HTTPError: the server is silent for five seconds, or refuses. ValueError: too slow, or not the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(target.name + ".new")
    digest, done, deadline = hashlib.md5(usedforsecurity=False), 0, time.monotonic() + DOWNLOAD_SECONDS
    try:
        with (
            httpx.stream("GET", url, timeout=SILENCE_SECONDS, follow_redirects=True) as answer,
            draft.open("wb") as file,
        ):
            answer.raise_for_status()
            size = int(answer.headers.get("Content-Length", 0))
            for piece in answer.iter_bytes():
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                progress(done, size)
                if time.monotonic() > deadline:
                    raise ValueError(f"{done:,} of {size:,} bytes after {DOWNLOAD_SECONDS:g} s")
        if digest.hexdigest() != md5:
            raise ValueError("its MD5 is not the one of CIFAR-10")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
