"""What a job of a team's own code is pinned to, is told, and leaves behind."""

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select, update

from stoker.errors import InvalidInput
from stoker.jobs import blobs
from stoker.jobs.attempts import Ending, OutputRecord, Usage, claim
from stoker.jobs.claims import Claimed
from stoker.jobs.collect import collect
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Attempt, Blob, CodeSnapshot, Dataset, Output, Result, Secret, User
from stoker.jobs.vault import Vault
from tests.support.queue import LEASE, Queue

CODE = "sha256:" + "5" * 64
KEY = Fernet.generate_key().decode()
SCRIPT: dict[str, Any] = {"kind": "script", "train": None, "script": {"code": CODE, "command": ["python", "train.py"]}}


def store_code(queue: Queue, content: bytes = b"tar") -> int:
    """Store code as the API does; returns the blob."""
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        stored = blobs.store(queue.factory, team, [content])
        session.add(
            CodeSnapshot(
                team_id=team,
                sha256=bytes.fromhex("5" * 64),
                blob_id=stored.blob_id,
                summary={},
                created_by=queue.user_id,
            )
        )
        session.commit()
    return stored.blob_id


def store_dataset(queue: Queue, name: str, content: bytes) -> None:
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        stored = blobs.store(queue.factory, team, [content])
        facets = {"team_id": team, "name": name, "format": "tar", "summary": {}, "created_by": queue.user_id}
        session.add(Dataset(sha256=stored.sha256, blob_id=stored.blob_id, **facets))
        session.commit()


def store_secret(queue: Queue, name: str, value: str) -> None:
    with queue.factory() as session:
        team = session.get_one(User, queue.user_id).team_id
        sealed = Vault(KEY).seal(team, name, value)
        session.add(Secret(team_id=team, name=name, ciphertext=sealed, created_by=queue.user_id))
        session.commit()


def claimed_with(queue: Queue, key: str | None) -> Claimed:
    """Place the next job and claim it with a vault of this key."""
    incarnation = queue.worker()
    (outgoing,) = queue.dispatch()
    with queue.factory() as session:
        claimed = claim(session, outgoing.attempt_id, incarnation, LEASE, Vault(key))
        session.commit()
    return claimed


def test_a_script_is_told_its_code_data_and_secrets(queue: Queue) -> None:
    blob = store_code(queue)
    store_dataset(queue, "pets", b"one")
    store_secret(queue, "WANDB_KEY", "swordfish")
    queue.submit(**SCRIPT, datasets=["digits", "pets"], secrets=["WANDB_KEY"])
    store_dataset(queue, "pets", b"two")  # later uploads are for later jobs
    claimed = claimed_with(queue, KEY)
    assert claimed.code is not None
    assert (claimed.code.sha256, claimed.code.blob_id, claimed.code.bytes) == ("5" * 64, blob, 3)
    assert claimed.code.blob_sha256 == hashlib.sha256(b"tar").hexdigest()
    found = [(dataset.name, dataset.sha256) for dataset in claimed.datasets]
    assert found == [("digits", None), ("pets", hashlib.sha256(b"one").hexdigest())]
    assert (claimed.dataset, claimed.secrets, claimed.lacks) == (None, {"WANDB_KEY": "swordfish"}, None)
    assert "swordfish" not in repr(claimed)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"script": {"code": "sha256:" + "6" * 64, "command": ["a"]}}, "script.code: your team has stored no code"),
        ({"datasets": ["pet"]}, "datasets: no data set 'pet'; nearest: pets"),
        ({"secrets": ["WANDB"]}, "secrets: your team has no secret WANDB; nearest: WANDB_KEY"),
    ],
)
def test_what_a_team_has_not_stored_is_refused_at_submit(queue: Queue, fields: dict[str, object], words: str) -> None:
    store_code(queue)
    store_dataset(queue, "pets", b"one")
    store_secret(queue, "WANDB_KEY", "swordfish")
    with pytest.raises(InvalidInput, match=words):
        queue.submit(**SCRIPT | fields)


@pytest.mark.parametrize("key", [None, base64.urlsafe_b64encode(bytes(32)).decode()])
def test_a_worker_that_cannot_read_a_secret_says_so(queue: Queue, key: str | None) -> None:
    store_code(queue)
    store_secret(queue, "WANDB_KEY", "swordfish")
    queue.submit(**SCRIPT, secrets=["WANDB_KEY"])
    claimed = claimed_with(queue, key)
    assert claimed.secrets == {}
    assert "cannot read the secret WANDB_KEY" in (claimed.lacks or "")


def test_a_secret_cannot_be_moved_to_another_name() -> None:
    vault = Vault(KEY)
    sealed = vault.seal(1, "A", "swordfish")
    assert b"swordfish" not in sealed
    assert [vault.open(1, "A", sealed), vault.open(1, "B", sealed), vault.open(2, "A", sealed)] == [
        "swordfish",
        None,
        None,
    ]


def test_outputs_and_usage_are_kept_whatever_the_outcome(queue: Queue) -> None:
    store_code(queue)
    incarnation = queue.worker()
    _, first = queue.running(incarnation, **SCRIPT, max_retries=1)
    kept = blobs.store(queue.factory, 1, [b"first"]), blobs.store(queue.factory, 1, [b"second"])
    ours = tuple(OutputRecord(path, kept[0].blob_id, 5) for path in ("a.txt", "b/c.txt"))
    usage = Usage(10**9, None, 12.5, {"python": "3.11"})
    failed = Ending(Outcome.FAILED, failure=Failure("user_error", "1"), outputs=ours, usage=usage)
    assert queue.finish(first, incarnation, failed) == "queued"
    with queue.factory() as session:
        attempt = session.get_one(Attempt, first)
        assert (attempt.peak_memory_bytes, attempt.peak_gpu_memory_bytes) == (10**9, None)
        assert (attempt.cpu_seconds, attempt.software) == (12.5, {"python": "3.11"})
        session.execute(update(Attempt).values(ended_at=func.now()))
        outputs = session.execute(select(Output.path, Output.bytes).order_by(Output.path)).all()
    assert [tuple(row) for row in outputs] == [("a.txt", 5), ("b/c.txt", 5)]


def test_what_a_script_calls_its_accuracy_may_be_anything(queue: Queue) -> None:
    store_code(queue)
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation, **SCRIPT)
    queue.finish(attempt, incarnation, Ending(Outcome.SUCCEEDED, result={"accuracy": 55.0, "self_reported": True}))
    with queue.factory() as session:
        result = session.get_one(Result, number)
        assert (result.accuracy, result.document["accuracy"]) == (None, 55.0)


def test_code_is_let_go_of_when_no_job_needs_it(queue: Queue) -> None:
    blob = store_code(queue)
    number = queue.submit(**SCRIPT)
    with queue.factory() as session:
        long_ago = func.now() - timedelta(hours=2)
        session.execute(update(CodeSnapshot).values(touched_at=long_ago))
        session.execute(update(Blob).values(created_at=long_ago))
        session.commit()
    collect(queue.factory)
    assert queue.job(number).code_sha256 == bytes.fromhex("5" * 64)
    with queue.factory() as session:
        session.delete(session.get_one(type(queue.job(number)), number))
        session.commit()
    collect(queue.factory)
    with queue.factory() as session:
        assert session.get(Blob, blob) is None
        assert session.scalar(select(func.count()).select_from(CodeSnapshot)) == 0
