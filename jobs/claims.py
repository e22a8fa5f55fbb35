"""What a worker is told of an attempt that is now its own."""

from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.jobs.lifecycle import AttemptState
from stoker.jobs.models import (
    Allocation,
    Attempt,
    Blob,
    CodeSnapshot,
    Dataset,
    Device,
    Job,
    JobDataset,
    Secret,
    Team,
    User,
)
from stoker.jobs.resuming import ClaimedCheckpoint
from stoker.jobs.spec import JobSpec, parse_spec
from stoker.jobs.vault import Vault


@dataclass(frozen=True, slots=True)
class ClaimedDataset:
    """The data that a job was pinned to when it was submitted; a built-in has only a name."""

    name: str
    sha256: str | None = None  # hexadecimal
    blob_id: int | None = None
    bytes: int = 0
    format: str | None = None  # zip | tar


@dataclass(frozen=True, slots=True)
class ClaimedCode:
    """A team's own code: a plain tar of regular files, sorted by name, whose names were checked."""

    sha256: str  # hexadecimal: of the code, over paths, modes and contents
    blob_id: int
    blob_sha256: str  # hexadecimal: of the tar's bytes
    bytes: int  # of the tar


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker needs to know of an attempt that is now its own."""

    attempt_id: UUID
    job_number: int
    ordinal: int
    name: str
    owner: str
    team: str
    team_id: int
    spec: JobSpec
    device: str  # cpu | gpu
    device_uuids: tuple[str, ...]
    device_share: float  # of each of them; less than 1: others of the team are on it, too
    device_bytes: int  # the memory of the smallest; 0 without any
    dataset: ClaimedDataset | None  # of a recipe
    checkpoint: ClaimedCheckpoint | None
    time_left_seconds: float | None  # of time_limit, less what earlier attempts ran
    pinned_machine: str | None
    code: ClaimedCode | None = None  # of a script or notebook, like what follows
    datasets: tuple[ClaimedDataset, ...] = ()  # in the order of the spec
    secrets: dict[str, str] = field(default_factory=dict, repr=False)  # in clear: never logged
    lacks: str | None = None  # why it cannot start, in one sentence: a secret is gone, or this worker cannot read it


def describe(
    session: Session, attempt: Attempt, job: Job, checkpoint: ClaimedCheckpoint | None, vault: Vault
) -> Claimed:
    """Read all that a worker is told."""
    owner, team = session.execute(
        select(User.name, Team.name).select_from(User).join(Team, Team.id == job.team_id).where(User.id == job.owner_id)
    ).one()
    spec = parse_spec(job.spec)
    devices = session.execute(
        select(Device.uuid, Device.memory_bytes)
        .join(Allocation, Allocation.device_id == Device.id)
        .where(Allocation.attempt_id == attempt.id)
        .order_by(Device.position)
    ).all()
    secrets, lacks = _secrets(session, job, spec, vault)
    return Claimed(
        attempt_id=attempt.id,
        job_number=job.number,
        ordinal=attempt.ordinal,
        name=job.name,
        owner=owner,
        team=team,
        team_id=job.team_id,
        spec=spec,
        device=attempt.device,
        device_uuids=tuple(device.uuid for device in devices),
        device_share=attempt.gpus_milli / 1000 / len(devices) if devices else 1.0,
        device_bytes=min((device.memory_bytes for device in devices), default=0),
        dataset=_dataset(session, job, spec),
        checkpoint=checkpoint,
        time_left_seconds=_time_left(session, job, spec),
        pinned_machine=job.pinned_machine,
        code=_code(session, job),
        datasets=_datasets(session, job, spec),
        secrets=secrets,
        lacks=lacks,
    )


def _dataset(session: Session, job: Job, spec: JobSpec) -> ClaimedDataset | None:
    if spec.train is None:
        return None
    if job.dataset_id is None:
        return ClaimedDataset(spec.train.dataset)
    pinned = select(Dataset, Blob.bytes).join(Blob, Blob.id == Dataset.blob_id).where(Dataset.id == job.dataset_id)
    return _pinned(*session.execute(pinned).one())


def _datasets(session: Session, job: Job, spec: JobSpec) -> tuple[ClaimedDataset, ...]:
    if not spec.datasets:
        return ()
    pinned = (
        select(Dataset, Blob.bytes)
        .join(JobDataset, JobDataset.dataset_id == Dataset.id)
        .join(Blob, Blob.id == Dataset.blob_id)
        .where(JobDataset.job_number == job.number)
    )
    found = {dataset.name: _pinned(dataset, size) for dataset, size in session.execute(pinned)}
    return tuple(found.get(name, ClaimedDataset(name)) for name in spec.datasets)


def _pinned(dataset: Dataset, size: int) -> ClaimedDataset:
    return ClaimedDataset(dataset.name, dataset.sha256.hex(), dataset.blob_id, size, dataset.format)


def _code(session: Session, job: Job) -> ClaimedCode | None:
    if job.code_sha256 is None:
        return None
    blob = session.scalars(
        select(Blob)
        .join(CodeSnapshot, CodeSnapshot.blob_id == Blob.id)
        .where(CodeSnapshot.team_id == job.team_id, CodeSnapshot.sha256 == job.code_sha256)
    ).one()
    return ClaimedCode(job.code_sha256.hex(), blob.id, blob.sha256.hex(), blob.bytes)


def _secrets(session: Session, job: Job, spec: JobSpec, vault: Vault) -> tuple[dict[str, str], str | None]:
    """The job's secrets in clear, and what is the matter with the first that cannot be had."""
    if not spec.secrets:
        return {}, None
    mine = select(Secret).where(Secret.team_id == job.team_id, Secret.name.in_(spec.secrets))
    sealed = {secret.name: secret.ciphertext for secret in session.scalars(mine)}
    opened: dict[str, str] = {}
    for name in spec.secrets:
        if name not in sealed:
            return {}, f"the secret {name} was removed since the job was submitted"
        value = vault.open(job.team_id, name, sealed[name])
        if value is None:
            return {}, f"this worker cannot read the secret {name}: its STOKER_SECRET_KEY is not the one that sealed it"
        opened[name] = value
    return opened, None


def _time_left(session: Session, job: Job, spec: JobSpec) -> float | None:
    """What is left of the time limit; earlier attempts count since the user's last retry, without frozen time."""
    if spec.time_limit is None:
        return None
    if job.attempts <= 1:
        return spec.time_limit
    seen = func.extract("epoch", Attempt.progressed_at - Attempt.claimed_at)  # of one whose supervisor died
    ran = select(func.coalesce(func.sum(func.coalesce(Attempt.ran_seconds, seen)), 0)).where(
        Attempt.job_number == job.number, Attempt.state == AttemptState.ENDED
    )
    if job.retried_at is not None:
        ran = ran.where(Attempt.claimed_at >= job.retried_at)
    return max(0.0, spec.time_limit - float(session.scalar(ran) or 0))
