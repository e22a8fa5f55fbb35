"""Archives and folders of images become tensors."""

import itertools
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from stoker.training import datasets
from stoker.training.config import DatasetSource
from stoker.training.failure import TrainingFailed
from stoker.training.loop import Stopped
from tests.training.pictures import class_files, picture, prepared, tarred, unpacked, zipped

CIFAR = Path(__file__).parents[3] / "shared/data/cifar10-jpeg.zip"


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


def test_a_class_name_that_no_result_can_hold_is_refused_before_the_training(tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": picture(number) for name in ("a" * 501, "b") for number in range(5)}
    with pytest.raises(TrainingFailed, match="501 characters; shorten them, to at most 500"):
        prepared(zipped(tmp_path / "a.zip", files), tmp_path)


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


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "data", {**class_files(), "cat/\udcff.png": b"x"})
    with pytest.raises(TrainingFailed, match="control characters"):
        prepared(folder, tmp_path / "cache")


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "data", class_files())
    (folder / "cat/secret.png").symlink_to("/etc/hostname")
    assert prepared(folder, tmp_path / "cache").bad_count == 0


def test_the_digits_are_always_the_same(cache: Path, tmp_path: Path) -> None:
    given = DatasetSource("digits", str(tmp_path))
    again = datasets.load(datasets.prepare(given, threads=1, watch=lambda *_: None))
    first = datasets.load(cache / "datasets/digits-v1.safetensors")
    assert again.digest == first.digest
    assert torch.equal(again.train_images, first.train_images)
    assert (len(first.train_labels), len(first.test_labels)) == (1442, 355)
    assert first.train_images.shape[1:] == (3, 32, 32)


WITHOUT_SEMAPHORES = """
import _multiprocessing, pathlib
class SemLock:
    def __init__(self, *given, **named):
        raise PermissionError(13, "Permission denied")
_multiprocessing.SemLock = SemLock
from stoker.training import builtin_datasets
builtin_datasets.read("digits", pathlib.Path("absent"), lambda *seen: None)
"""


def test_the_digits_print_nothing_where_there_are_no_semaphores() -> None:
    command = [sys.executable, "-c", WITHOUT_SEMAPHORES]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def slow_mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A server of Fashion-MNIST that says nothing before the event is set, and then nonsense."""
    answer = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.wait(30)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"nonsense")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield answer
        answer.set()
        server.shutdown()
    for thread in threading.enumerate():
        if thread.name == "download":
            thread.join()


def test_a_download_is_watched(slow_mirror: threading.Event, tmp_path: Path) -> None:
    looks = itertools.count(1)

    def watch(*_: int) -> None:
        if next(looks) >= 4:
            slow_mirror.set()

    with pytest.raises(TrainingFailed, match="fashion-mnist cannot be downloaded"):
        datasets.prepare(DatasetSource("fashion-mnist", str(tmp_path)), threads=1, watch=watch)
    assert slow_mirror.is_set()


def test_a_download_ends_when_the_trainer_is_stopped(slow_mirror: threading.Event, tmp_path: Path) -> None:
    looks = itertools.count(1)

    def watch(*_: int) -> None:
        if next(looks) >= 3:
            raise Stopped

    with pytest.raises(Stopped):
        datasets.prepare(DatasetSource("fashion-mnist", str(tmp_path)), threads=1, watch=watch)
    assert not slow_mirror.is_set()


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
