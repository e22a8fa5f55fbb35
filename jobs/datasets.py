"""Uploaded data sets: a name of a team, and the content that the name stands for since its latest upload."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput
from stoker.jobs.accounts import Caller
from stoker.jobs.blobs import Stored
from stoker.jobs.models import Blob, Dataset, Team, User
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.spec_fields import dataset_name
from stoker.jobs.visibility import visible
from stoker.training.config import BUILTIN_DATASETS


@dataclass(frozen=True, slots=True)
class Summary:
    """What an archive of class folders holds, by the names of its files and their first bytes."""

    format: str  # zip | tar
    classes: list[str]
    train_images: int
    test_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetView:
    """A data set as it is shown."""

    name: str
    digest: str  # sha256:…
    bytes: int
    classes: list[str]
    train_images: int
    test_images: int
    owner: str
    team: str
    created_at: datetime


def check_name(name: str) -> str:
    """Check the name for an upload; raises InvalidInput."""
    try:
        dataset_name(name)
    except InvalidInput as error:
        raise InvalidInput("name", error.problem, error.fix) from None
    if name in BUILTIN_DATASETS:
        raise InvalidInput("name", f"{name} is built in", "choose another name")
    return name


def add_dataset(
    session: Session, caller: Caller, name: str, stored: Stored, summary: Summary
) -> tuple[DatasetView, bool]:
    """Let a name of the caller's team stand for this content from now on; jobs keep what they were pinned to.

    Returns the data set, and whether it is new: the same content under the same name again changes nothing.
    """
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{caller.team_id}:{name}", 0))))
    named = select(Dataset).where(Dataset.team_id == caller.team_id, Dataset.name == name)
    latest = session.scalars(named.order_by(Dataset.id.desc()).limit(1)).one_or_none()
    created = latest is None or latest.sha256 != stored.sha256
    if latest is None or created:
        latest = Dataset(
            team_id=caller.team_id,
            name=name,
            sha256=stored.sha256,
            blob_id=stored.blob_id,
            format=summary.format,
            summary={
                "classes": summary.classes,
                "train_images": summary.train_images,
                "test_images": summary.test_images,
            },
            created_by=caller.user_id,
        )
        session.add(latest)
        session.flush()
        session.refresh(latest)
    owner = session.scalars(select(User.name).where(User.id == latest.created_by)).one()
    return _view(latest, stored.size, owner, caller.team), created


def list_datasets(
    session: Session, caller: Caller, limit: int, after: str | None, name: str | None = None
) -> Page[DatasetView]:
    """What each name stands for now, the latest upload first."""
    newest = select(func.max(Dataset.id)).group_by(Dataset.team_id, Dataset.name)
    statement = (
        select(Dataset, Blob.bytes, User.name, Team.name)
        .join(Blob, Blob.id == Dataset.blob_id)
        .join(User, User.id == Dataset.created_by)
        .join(Team, Team.id == Dataset.team_id)
        .where(Dataset.id.in_(newest), visible(caller, Dataset.team_id))
        .order_by(Dataset.id.desc())
        .limit(limit + 1)
    )
    if (last := position("dataset", after)) is not None:
        statement = statement.where(Dataset.id < last)
    if name is not None:
        statement = statement.where(Dataset.name == name)
    rows = session.execute(statement).all()
    more = cursor("dataset", rows[limit - 1][0].id) if len(rows) > limit else None
    return Page([_view(*row) for row in rows[:limit]], more)


def _view(dataset: Dataset, size: int, owner: str, team: str) -> DatasetView:
    return DatasetView(
        name=dataset.name,
        digest=f"sha256:{dataset.sha256.hex()}",
        bytes=size,
        classes=dataset.summary["classes"],
        train_images=dataset.summary["train_images"],
        test_images=dataset.summary["test_images"],
        owner=owner,
        team=team,
        created_at=dataset.created_at,
    )
