"""A team's own code in a test's queue: stored as the API stores it, submitted as a script."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from stoker.jobs import blobs
from stoker.jobs.lifecycle import State
from stoker.jobs.models import CodeSnapshot, Dataset, Output, Secret, User
from stoker.jobs.vault import Vault
from tests.support.queue import Queue
from tests.support.workers import Stage

Files = Mapping[str, str | bytes]
SMALL = {"cpus": 0.1, "memory": 10**9}  # an interpreter of its own holds torch for itself


def tar_of(files: Files, executable: tuple[str, ...] = ()) -> bytes:
    """A plain tar of plain files, sorted by name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in sorted(files.items()):
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755 if name in executable else 0o644
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def store_code(queue: Queue, files: Files, executable: tuple[str, ...] = ()) -> str:
    """Store code, as the API does; its digest for a spec."""
    data = tar_of(files, executable)
    digest = hashlib.sha256(data)  # any digest will do: nothing but the API makes it of paths and contents
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        stored = blobs.store(queue.factory, team, [data])
        if session.get(CodeSnapshot, (team, digest.digest())) is None:
            session.add(
                CodeSnapshot(
                    team_id=team,
                    sha256=digest.digest(),
                    blob_id=stored.blob_id,
                    summary={},
                    created_by=queue.user_id,
                )
            )
        session.commit()
    return f"sha256:{digest.hexdigest()}"


def submit_script(
    queue: Queue, source: str | Files, *command: str, executable: tuple[str, ...] = (), **more: Any
) -> int:
    """Submit a script: a text is ``train.py``; without a command, ``python train.py``."""
    files = {"train.py": source} if isinstance(source, str) else source
    code = store_code(queue, files, executable)
    script = {"code": code, "command": list(command) or ["python", "train.py"]}
    return queue.submit(**{"kind": "script", "train": None, "script": script, "resources": SMALL} | more)


def store_dataset(queue: Queue, name: str, files: Files) -> None:
    """Store a data set, a zip of these files, as the API does."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        stored = blobs.store(queue.factory, team, [made.getvalue()])
        facets = {"team_id": team, "name": name, "format": "zip", "summary": {}, "created_by": queue.user_id}
        session.add(Dataset(sha256=stored.sha256, blob_id=stored.blob_id, **facets))
        session.commit()


def store_secret(queue: Queue, vault: Vault, name: str, value: str) -> None:
    """Store a secret of the team."""
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        sealed = vault.seal(team, name, value)
        session.add(Secret(team_id=team, name=name, ciphertext=sealed, created_by=queue.user_id))
        session.commit()


def outputs(queue: Queue, number: int) -> dict[str, bytes]:
    """The files that a job left, by path."""
    with queue.factory() as session:
        rows = session.scalars(select(Output).where(Output.job_number == number)).all()
        return {row.path: b"".join(blobs.read(session, row.blob_id)) for row in rows}


def wheel_of(name: str, files: Files) -> bytes:
    """A wheel of pure Python, version 1.0, that pip installs without any index."""
    made = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/METADATA"]))
    return made.getvalue()


def failure_of(own: Stage, number: int) -> dict[str, str]:
    """How a job failed."""
    job = own.wait_final(number)
    assert job.state == State.FAILED
    assert job.failure is not None
    return job.failure


def succeeded(own: Stage, number: int) -> str:
    """Its log, once it has succeeded."""
    job = own.wait_final(number)
    assert (job.state, job.failure) == (State.SUCCEEDED, None), own.printed(number)
    return own.printed(number)
