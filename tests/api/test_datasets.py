"""Uploads: checked member by member, stored by content, never extracted."""

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.api.archive_summary import summarise
from stoker.jobs.blobs import read
from stoker.jobs.datasets import Summary
from stoker.jobs.models import Blob, Chunk, Dataset, Job
from stoker.settings import Settings
from stoker.training import class_folders
from tests.api.conftest import People

DATASETS = "/api/v1/datasets"


def picture(shade: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (4, 4), (shade % 256, shade // 256, 7)).save(written, "PNG")
    return written.getvalue()


def files(*names: str) -> dict[str, bytes]:
    return {name: picture(at) for at, name in enumerate(names)}


DIVIDED = files(
    *(f"top/{part}/{label}/{at}.png" for part in ("train", "test") for label in ("cat", "dog") for at in (1, 2))
)
UNDIVIDED = files(*(f"{label}/{at}.png" for label in ("cat", "dog") for at in range(7)))


def as_zip(content: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def as_tar(content: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return written.getvalue()


def spool(settings: Settings) -> list[Path]:
    return list((settings.home / "uploads").glob("*"))


@pytest.mark.parametrize("packed", [as_zip(DIVIDED), as_tar(DIVIDED), gzip.compress(as_tar(DIVIDED))])
def test_an_upload_is_stored_and_listed(
    client: TestClient, settings: Settings, factory: sessionmaker[Session], packed: bytes
) -> None:
    digest = hashlib.sha256(packed).hexdigest()
    answer = client.post(f"{DATASETS}?name=pets&sha256={digest}", content=packed)
    made = answer.json()
    assert answer.status_code == 201
    assert (made["name"], made["digest"], made["bytes"]) == ("pets", f"sha256:{digest}", len(packed))
    assert (made["classes"], made["train_images"], made["test_images"]) == (["cat", "dog"], 4, 4)
    assert (made["owner"], made["team"]) == ("ada", "vision")
    assert client.get(DATASETS).json() == {"items": [made], "next": None}
    with factory() as session:
        stored = session.scalars(select(Dataset)).one()
        assert b"".join(read(session, stored.blob_id)) == packed
        assert stored.format == ("zip" if packed.startswith(b"PK") else "tar")
    assert spool(settings) == []
    assert (settings.home / "uploads").stat().st_mode & 0o077 == 0


def test_undivided_classes_give_every_fifth_image_to_the_test(client: TestClient) -> None:
    made = client.post(f"{DATASETS}?name=pets", content=as_zip(UNDIVIDED)).json()
    assert (made["train_images"], made["test_images"]) == (12, 2)


@pytest.mark.parametrize(
    "content",
    [
        DIVIDED,
        UNDIVIDED,
        files(*(f"a/b/c/{label}/{at}.png" for label in ("x", "y") for at in range(6))),
        files(*(f"train/{label}/{at}.png" for label in ("x", "y", "z") for at in range(11))),
        files(
            *(f"{part}/{label}/{at}.png" for part in ("train", "validation") for label in ("x", "y") for at in (1, 2))
        ),
        files(*(f"s/{label}/sub/{at}.png" for label in ("x", "y") for at in range(9))) | {"README": b"read me"},
        files(*(f"s/{label}/{at}.png" for label in ("x", "y") for at in range(9))) | {"s/README": b"read me"},
        UNDIVIDED | {"cat/notes.txt": b"no image", "cat/empty.png": b"", ".git/x/y.png": picture(1)},
    ],
)
def test_the_count_is_that_of_the_decoder(tmp_path: Path, content: dict[str, bytes]) -> None:
    path = tmp_path / "archive"
    path.write_bytes(as_zip(content))
    counted = summarise(path)
    with class_folders.read(path, tmp_path, 1, print) as decoded:
        assert counted.classes == decoded.classes
        assert counted.train_images == len(decoded.labels["train"])
        assert counted.test_images == len(decoded.labels["test"])


def test_the_same_content_is_stored_once(client: TestClient, people: People, factory: sessionmaker[Session]) -> None:
    packed = as_zip(DIVIDED)
    first = client.post(f"{DATASETS}?name=pets", content=packed)
    again = client.post(f"{DATASETS}?name=pets", content=packed, headers={"Authorization": f"Bearer {people.bob}"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert client.post(f"{DATASETS}?name=animals", content=packed).status_code == 201
    with factory() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 2
        assert session.scalar(select(func.count()).select_from(Blob)) == 1
        assert session.scalar(select(func.count()).select_from(Chunk)) == 1
    assert [one["name"] for one in client.get(DATASETS).json()["items"]] == ["animals", "pets"]
    assert [one["name"] for one in client.get(f"{DATASETS}?name=pets").json()["items"]] == ["pets"]


def test_a_job_is_pinned_to_what_the_name_meant(client: TestClient, factory: sessionmaker[Session]) -> None:
    client.post(f"{DATASETS}?name=pets", content=as_zip(DIVIDED))
    number = client.post("/api/v1/jobs", json={"train": {"dataset": "pets"}}).json()["number"]
    newer = client.post(f"{DATASETS}?name=pets", content=as_zip(UNDIVIDED)).json()
    assert [one["digest"] for one in client.get(DATASETS).json()["items"]] == [newer["digest"]]
    with factory() as session:
        pinned = session.get_one(Job, number).dataset_id
        assert pinned is not None
        assert session.get_one(Dataset, pinned).sha256 == hashlib.sha256(as_zip(DIVIDED)).digest()


def test_another_team_sees_and_uses_nothing(client: TestClient, people: People) -> None:
    client.post(f"{DATASETS}?name=pets", content=as_zip(DIVIDED))
    eve = {"Authorization": f"Bearer {people.eve}"}
    assert client.get(DATASETS, headers=eve).json()["items"] == []
    answer = client.post("/api/v1/jobs", json={"train": {"dataset": "pets"}}, headers=eve)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "train.dataset")
    admin = {"Authorization": f"Bearer {people.admin}"}
    assert [one["team"] for one in client.get(DATASETS, headers=admin).json()["items"]] == ["vision"]


NAMES = [
    "", "Pets", "../../etc/x", "..%5Cx", "%2Fabs", "C:%5Cx", "a/./../../x", "a%00b", "a%0Ab", "x" * 5000, ".",
    "-rf", "_a",
    "%2e%2e%2f", "%252e%252e", "%c0%ae", "cifar10", "digits", "p%C3%A9ts",
]  # fmt: skip


def test_names_that_cannot_be_used(client: TestClient) -> None:
    packed = as_zip(DIVIDED)
    for name in NAMES:
        answer = client.post(f"{DATASETS}?name={name}", content=packed)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "name"), name
        assert len(answer.text) < 1000
    assert client.post(DATASETS, content=packed).json()["detail"] == "name: is missing; add it"
    assert client.post(f"{DATASETS}?name=con", content=packed).status_code == 201  # no name ever becomes a path


def tar_link(kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo("cat/link.png")
    info.type, info.linkname = kind, target
    return info


def encrypted() -> bytes:
    raw = bytearray(as_zip(DIVIDED))
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 8] |= 1
        at = raw.find(b"PK\x01\x02", at + 1)
    return bytes(raw)


def zip_twice() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("cat/1.png", picture(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("cat/1.png", picture(1))
    return written.getvalue()


def zip_link() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        info = zipfile.ZipInfo("cat/link.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return written.getvalue()


BAD = {
    "empty": (b"", "damaged or no archive"),
    "only a header": (b"PK\x03\x04", "damaged or no archive"),
    "no archive": (b"hello" * 1000, "damaged or no archive"),
    "an image": (picture(1), "damaged or no archive"),
    "cut": (as_zip(DIVIDED)[:-30], "damaged or no archive"),
    "gzip cut": (gzip.compress(as_tar(DIVIDED))[:-30], ""),
    "no files": (as_zip({}), "none of them an image"),
    "no images": (as_zip({"cat/1.txt": b"text", "dog/1.svg": b"<svg/>"}), "none of them an image"),
    "no folders": (as_zip(files("1.png", "2.png")), "no image lies in a class folder"),
    "one class": (as_zip(files("cat/1.png", "cat/2.png")), "only one class, 'cat'"),
    "no test": (as_zip(files("cat/1.png", "dog/2.png")), "no test images"),
    "an untrained class": (as_zip(DIVIDED | files("top/test/fox/1.png")), "no training images of class 'fox'"),
    "out": (as_zip(DIVIDED | files("../../etc/x.png")), "leads out of the archive"),
    "absolute": (as_tar(DIVIDED | files("/etc/x.png")), "leads out of the archive"),
    "backslash": (as_zip(DIVIDED | files("..\\x.png")), "leads out of the archive"),
    "control": (as_zip(DIVIDED | files("cat/a\nb.png")), "control characters"),
    "twice": (zip_twice(), "occurs twice"),
    "zip link": (zip_link(), "a link or a device"),
    "encrypted": (encrypted(), "is encrypted"),
    "symbolic link": (as_tar(DIVIDED, tar_link(tarfile.SYMTYPE)), "a link, a device or sparse"),
    "hard link": (as_tar(DIVIDED, tar_link(tarfile.LNKTYPE)), "a link, a device or sparse"),
    "device": (as_tar(DIVIDED, tar_link(tarfile.CHRTYPE)), "a link, a device or sparse"),
    "bomb": (as_zip(DIVIDED | {f"cat/{at}.png": bytes(30_000_000) for at in range(3)}), "times as many"),
    "gzip bomb": (gzip.compress(as_tar(DIVIDED | {f"cat/{at}.png": bytes(40_000_000) for at in (0, 1)})), "times as"),
}  # fmt: skip


def test_bad_archives(client: TestClient, settings: Settings, factory: sessionmaker[Session]) -> None:
    for name, (packed, sentence) in BAD.items():
        answer = client.post(f"{DATASETS}?name=bad", content=packed)
        problem = answer.json()
        assert (answer.status_code, problem["errors"][0]["field"]) == (422, "archive"), (name, problem)
        assert sentence in problem["detail"], (name, problem["detail"])
        assert str(settings.home) not in answer.text
        assert "/proc" not in answer.text, name
        if "damaged or no archive" in sentence:
            assert problem["detail"].startswith("archive: what was sent is damaged or no archive"), problem
    assert spool(settings) == []
    with factory() as session:
        assert session.scalar(select(func.count()).select_from(Chunk)) == 0


def test_a_wrong_digest_is_noticed(client: TestClient) -> None:
    packed = as_zip(DIVIDED)
    wrong = client.post(f"{DATASETS}?name=pets&sha256={'0' * 64}", content=packed)
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "sha256")
    for text in ("0" * 63, "Z" * 64, "sha1:" + "0" * 40, ""):
        assert client.post(f"{DATASETS}?name=pets&sha256={text}", content=packed).status_code == 422
    right = hashlib.sha256(packed).hexdigest()
    assert client.post(f"{DATASETS}?name=pets&sha256=sha256:{right}", content=packed).status_code == 201


def test_other_kinds_of_body(client: TestClient) -> None:
    packed = as_zip(DIVIDED)
    form = client.post(f"{DATASETS}?name=pets", files={"file": packed})
    assert form.status_code == 415
    for kind in ("application/json", "application/x-www-form-urlencoded"):
        assert client.post(f"{DATASETS}?name=pets", content=packed, headers={"Content-Type": kind}).status_code == 415
    assert client.post(f"{DATASETS}?name=pets", content=packed, headers={"Content-Encoding": "gzip"}).status_code == 415


def test_the_limit_is_watched_while_bytes_arrive(settings: Settings, people: People) -> None:
    limited = replace(settings, upload_limit_bytes=3_000_000)
    headers = {"Authorization": f"Bearer {people.ada}"}
    with TestClient(create_app(limited), headers=headers) as client:
        announced = client.post(f"{DATASETS}?name=pets", content=bytes(3_000_001))
        assert (announced.status_code, announced.json()["code"]) == (413, "too_large")
        streamed = client.post(f"{DATASETS}?name=pets", content=(bytes(500_000) for _ in range(7)))
        assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")
    assert spool(settings) == []


def test_an_upload_has_no_name_that_could_stay(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []

    def looking(path: Path) -> Summary:
        seen.append(spool(settings))
        return summarise(path)

    monkeypatch.setattr("stoker.api.datasets.summarise", looking)
    assert client.post(f"{DATASETS}?name=pets", content=as_tar(DIVIDED)).status_code == 201
    assert seen == [[]]


def test_a_full_disk_is_named(client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: Path("/dev/full").open("wb"))  # noqa: SIM115 - closed by who asked
    answer = client.post(f"{DATASETS}?name=pets", content=os.urandom(3_000_000))
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert spool(settings) == []
