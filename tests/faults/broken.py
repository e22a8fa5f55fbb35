"""Three builds of a worker that must not pass: each takes one guard out of the product, in this process alone."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from stoker.errors import AttemptClosed
from stoker.jobs import attempts, blobs, records
from stoker.jobs.claims import Claimed, describe
from stoker.jobs.models import Attempt, Blob, BlobChunk, Job
from stoker.jobs.resuming import latest_checkpoint
from stoker.jobs.vault import Vault
from stoker.workers.findings import digest_of, open_handed_in, pieces
from stoker.workers.storing import Storing
from tests.faults.points import Points


def without_fence(_: Points) -> None:
    """Whoever asks may write for an attempt, also when it has ended or was taken away."""

    def hold_attempt(session: Session, attempt: UUID, incarnation: UUID, *, closing: bool = False) -> Attempt:
        return session.get_one(Attempt, attempt)

    for module in (attempts, records):
        setattr(module, hold_attempt.__name__, hold_attempt)


def row_before_bytes(points: Points) -> None:
    """A checkpoint's row is committed first, its bytes afterwards."""

    def store_verified(storing: Storing, message: dict[str, Any]) -> None:
        run = storing._run
        with open_handed_in(storing._scratch, message["path"]) as file:
            digest = bytes.fromhex(digest_of(file))
            content = list(pieces(file))
        storing._repeat(lambda session: _add_row(session, storing, digest, message), "row_before_bytes")
        points.reach("row", run.claimed.job_number, str(run.id))
        blobs.store(storing._sessions, run.claimed.team_id, content)

    setattr(Storing, "_store_verified", store_verified)  # noqa: B010 - mypy knows that it is a method


def _add_row(session: Session, storing: Storing, digest: bytes, message: dict[str, Any]) -> int:
    run, size = storing._run, message["bytes"]
    added = insert(Blob).values(team_id=run.claimed.team_id, sha256=digest, bytes=size).returning(Blob.id)
    blob_id = session.execute(added).scalar_one()
    place = {"blob_id": blob_id, "position": 0, "team_id": run.claimed.team_id, "sha256": digest}
    session.execute(insert(BlobChunk).values(place))  # right for content of one chunk, as that of the victims is
    facets = {name: message[name] for name in ("step", "epoch", "metrics")}
    return records.add_checkpoint(session, run.id, run.incarnation, sha256=digest, size=size, blob_id=blob_id, **facets)


def unguarded_claim(_: Points) -> None:
    """A message claims its attempt, whoever has it already."""
    guarded = attempts.claim

    def claim(
        session: Session, attempt: UUID, incarnation: UUID, lease_seconds: float, vault: Vault = attempts.NO_VAULT
    ) -> Claimed:
        try:
            return guarded(session, attempt, incarnation, lease_seconds, vault)
        except AttemptClosed:
            session.rollback()
            found = session.scalars(select(Attempt).where(Attempt.id == attempt)).one_or_none()
            if found is None:
                raise
            job = session.get_one(Job, found.job_number)
            return describe(session, found, job, latest_checkpoint(session, job), vault)

    setattr(attempts, guarded.__name__, claim)


BUILDS: dict[str, Callable[[Points], None]] = {
    "fence": without_fence,
    "checkpoint": row_before_bytes,
    "claim": unguarded_claim,
}
