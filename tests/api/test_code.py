"""A team's own code over HTTP: what is kept, and what is refused, member by member."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from stoker.api import code_archive
from stoker.jobs.models import Blob, CodeSnapshot, Event
from tests.api.conftest import People

CODE = "/api/v1/code"
FILES = {"train.py": b"print(1)\n", "package/__init__.py": b"", "data/é.csv": b"1,2\n", ".config/x": b"y"}


def tar_of(files: dict[str, bytes], mode: int = 0o644, **options: object) -> bytes:
    """A tar as any program would make it: with owners, times and folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:  # type: ignore[call-overload]
        archive.addfile(named("./folder", type=tarfile.DIRTYPE, mode=0o755))
        for name, content in files.items():
            archive.addfile(named(f"./{name}", size=len(content), mode=mode, mtime=1e9), io.BytesIO(content))
    return buffer.getvalue()


def named(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def expected_digest(files: dict[str, bytes], mode: str = "0644") -> str:
    """The digest, written down once more from its description."""
    lines = [
        f"{mode} {hashlib.sha256(files[path]).hexdigest()} {path}\n".encode()
        for path in sorted(files, key=lambda path: path.encode())
    ]
    return "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()


Response = Any  # of the test client


def post(client: TestClient, body: bytes, **headers: str) -> Response:
    return client.post(CODE, content=body, headers={"Content-Type": "application/x-tar"} | headers)


def test_code_is_stored_once_and_comes_back_as_a_plain_tar(
    client: TestClient, factory: sessionmaker[Session], people: People
) -> None:
    first = post(client, tar_of(FILES))
    assert first.status_code == 201, first.text
    code = first.json()["code"]
    assert code == expected_digest(FILES)
    assert first.headers["location"] == f"{CODE}/{code}"
    assert {name: first.json()[name] for name in ("bytes", "files", "git", "owner")} == {
        "bytes": sum(map(len, FILES.values())),
        "files": 4,
        "git": None,
        "owner": "ada",
    }
    again = post(client, tar_of(dict(reversed(FILES.items())), mode=0o600, format=tarfile.GNU_FORMAT))
    assert (again.status_code, again.json()["code"]) == (200, code)
    with factory() as session:
        assert len(session.scalars(select(Blob)).all()) == 1
        assert session.scalars(select(Event.actor).where(Event.name == "code_uploaded")).all() == ["ada"]
    assert client.head(f"{CODE}/{code}").status_code == 200
    content = client.get(f"{CODE}/{code}/content")
    assert content.headers["content-type"] == "application/x-tar"
    assert content.headers["content-security-policy"].startswith("sandbox")
    with tarfile.open(fileobj=io.BytesIO(content.content)) as archive:
        members = archive.getmembers()
        found = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert found == FILES
    assert [member.name for member in members] == sorted(FILES, key=lambda path: path.encode())
    assert {(member.mode, member.mtime, member.uid, member.uname) for member in members} == {(0o644, 0, 0, "")}


def test_a_mode_that_may_be_executed_is_part_of_the_code(client: TestClient) -> None:
    answer = post(client, tar_of({"run.sh": b"#!/bin/sh\n"}, mode=0o700))
    assert answer.json()["code"] == expected_digest({"run.sh": b"#!/bin/sh\n"}, "0755")


def test_code_belongs_to_a_team(client: TestClient, people: People) -> None:
    code = post(client, tar_of(FILES)).json()["code"]
    eve = {"Authorization": f"Bearer {people.eve}"}
    for path in (f"{CODE}/{code}", f"{CODE}/{code}/content"):
        assert client.get(path).status_code == 200
        answer = client.get(path, headers=eve)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    body = {"script": {"code": code, "command": ["python", "train.py"]}}
    assert client.post("/api/v1/jobs", json=body).status_code == 201
    refused = client.post("/api/v1/jobs", json=body, headers=eve)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "script.code")
    assert client.get(f"{CODE}/sha256:5").status_code == 422
    assert client.get(f"{CODE}/sha256:{'5' * 64}").status_code == 404


def test_who_sees_another_teams_code_is_told_that_the_own_team_lacks_it(client: TestClient, people: People) -> None:
    """An administrator sees all code, and can submit none but that of the own team: it has to be sent first."""
    admin, eve = ({"Authorization": f"Bearer {token}"} for token in (people.admin, people.eve))
    body = tar_of(FILES)
    code = client.post(CODE, content=body, headers=eve | {"Content-Type": "application/x-tar"}).json()["code"]
    assert client.get(f"{CODE}/{code}", headers=admin).status_code == 200
    assert client.get(f"{CODE}/{code}?own=true", headers=admin).status_code == 404
    sent = client.post(CODE, content=body, headers=admin | {"Content-Type": "application/x-tar"})
    assert (sent.status_code, sent.json()["code"]) == (201, code)
    assert client.get(f"{CODE}/{code}?own=true", headers=admin).status_code == 200


def test_what_git_says_is_kept_beside_the_code(client: TestClient) -> None:
    commit = "0" * 39 + "f"
    ours = json.dumps({"commit": commit, "branch": "main", "dirty": True, "diff": "+a"})
    git = post(client, tar_of(FILES, pax_headers={"STOKER.git": ours})).json()["git"]
    assert git == {"commit": commit, "branch": "main", "dirty": True, "diff": "+a"}
    archived = post(client, tar_of({"a": b""}, pax_headers={"comment": commit})).json()["git"]
    assert (archived["commit"], archived["dirty"]) == (commit, False)
    refused = post(client, tar_of({"b": b""}, pax_headers={"STOKER.git": '{"commit":"x"}'}))
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "commit")


def plain(name: str, **fields: object) -> bytes:
    return tar_with((named(name, **fields), b""))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is damaged or no tar"),
    "no files": (tar_of({}), "holds no files"),
    "text": (b"hello" * 1000, "is damaged or no tar"),
    "gzip": (b"\x1f\x8b\x08\x00aaaaaaaa", "is compressed"),
    "zip": (b"PK\x03\x04aaaaaaaa", "is compressed"),
    "absolute": (plain("/etc/passwd"), "leads out"),
    "parent": (plain("a/../../b"), "leads out"),
    "dot": (plain("a/./b"), "is not a plain path"),
    "newline": (plain("a\nb"), "unprintable character U+000A"),
    "not utf-8": (
        tar_of({"axb": b""}, format=tarfile.USTAR_FORMAT).replace(b"axb", b"a\xffb"),
        "is damaged",
    ),
    "long part": (plain("x" * 256), "longer than 255 bytes"),
    "twice": (tar_with((named("a"), b""), (named("./a"), b"")), "occurs twice"),
    "file and folder": (tar_with((named("a"), b""), (named("a/b"), b"")), "'a' is a file and a folder"),
    "symbolic link": (plain("a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'a' is a link"),
    "hard link": (tar_with((named("b"), b""), (named("a", type=tarfile.LNKTYPE, linkname="b"), b"")), "is a link"),
    "device": (plain("a", type=tarfile.CHRTYPE), "is no plain file"),
    "pipe": (plain("a", type=tarfile.FIFOTYPE), "is no plain file"),
    "sparse": (plain("a", type=tarfile.GNUTYPE_SPARSE), "is no plain file"),
    "no end": (tar_of({"a": b""}).rstrip(b"\0"), "code"),
    "damaged header": (tar_of({"a": b"", "b": b""}).replace(b"./b", b"./c"), "is damaged"),
    "too short": (tar_of({"a": bytes(9000)})[:4000], "code"),
    "negative size": (plain("a", pax_headers={"size": "-5"}), "code"),
    "endless headers": (
        tar_with(
            *((named("x", type=tarfile.XHDTYPE, size=12), b"12 path=abc\n") for _ in range(2000)), (named("a"), b"")
        ),
        "headers in a row",
    ),
    "huge header": (tar_with((named("x", type=tarfile.XHDTYPE, size=10**6), bytes(10**6))), "headers of more than"),
}


def test_a_hostile_tar_is_refused_with_its_reason(client: TestClient, factory: sessionmaker[Session]) -> None:
    for kind, (body, words) in HOSTILE.items():
        answer = post(client, body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (kind, answer.text)
        assert words in answer.json()["detail"], kind
    with factory() as session:
        assert session.scalars(select(CodeSnapshot)).all() == []


def test_limits_and_wrong_ways_to_send(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for content_type in ("multipart/form-data; boundary=x", "application/json"):
        assert post(client, b"x", **{"Content-Type": content_type}).status_code == 415
    assert post(client, b"x", **{"Content-Encoding": "gzip"}).status_code == 415
    monkeypatch.setattr(code_archive, "MAX_FILES", 2)
    answer = post(client, tar_of(FILES))
    assert (answer.status_code, answer.json()["errors"][0]["problem"]) == (422, "holds more than 2 files")


@pytest.fixture
def small(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Response]:
    """Send so many bytes of code to a server that takes 10,000."""
    services = client.app.state.services  # type: ignore[attr-defined]
    limited = services.__class__(
        **{name: getattr(services, name) for name in services.__slots__}
        | {
            "settings": services.settings.__class__(
                database_url="x", home=services.settings.home, code_limit_bytes=10_000
            )
        }
    )
    monkeypatch.setattr(client.app.state, "services", limited)  # type: ignore[attr-defined]
    return lambda size: post(client, tar_of({"a": bytes(size)}))


def test_too_much_code_is_refused(small: Callable[[int], Response]) -> None:
    assert small(10_000).status_code == 201
    for size in (10_001, 10**6):
        answer = small(size)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert answer.json()["detail"].startswith("the code is larger than")
