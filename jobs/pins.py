"""What a job names is looked up once, when it is submitted: later uploads under the same names change nothing."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput
from stoker.jobs.models import CodeSnapshot, Dataset, Secret
from stoker.jobs.spec import JobSpec
from stoker.quoting import quoted
from stoker.training.config import BUILTIN_DATASETS


@dataclass(frozen=True, slots=True)
class Pins:
    """Rows that a job refers to; what is built in needs none."""

    dataset_id: int | None = None  # of a recipe
    code_sha256: bytes | None = None
    datasets: dict[str, int] = field(default_factory=dict)  # of a script or notebook: id by name


def pin(session: Session, spec: JobSpec, team_id: int) -> Pins:
    """Find what a spec names among what its team has stored.

    Raises InvalidInput, with the nearest names, for what is not there.
    """
    if spec.train is not None:
        return Pins(
            dataset_id=_datasets(session, team_id, "train.dataset", [spec.train.dataset]).get(spec.train.dataset)
        )
    _check_secrets(session, team_id, spec.secrets)
    return Pins(
        code_sha256=_code(session, team_id, spec), datasets=_datasets(session, team_id, "datasets", spec.datasets)
    )


def _datasets(session: Session, team_id: int, place: str, names: Iterable[str]) -> dict[str, int]:
    """The latest upload under each name; no upload can have the name of a built-in one."""
    wanted = [name for name in names if name not in BUILTIN_DATASETS]
    if not wanted:
        return {}
    mine = select(Dataset.name, func.max(Dataset.id)).where(Dataset.team_id == team_id).group_by(Dataset.name)
    rows = session.execute(mine.where(Dataset.name.in_(wanted))).all()
    found = {row[0]: row[1] for row in rows}
    for name in wanted:
        if name not in found:
            known = [*BUILTIN_DATASETS, *session.scalars(mine.with_only_columns(Dataset.name))]
            raise InvalidInput(
                place, f"no data set {quoted(name)}", f"nearest: {_near(name, known)}; or upload it first"
            )
    return found


def _code(session: Session, team_id: int, spec: JobSpec) -> bytes:
    """The digest of stored code, touched: it stays until the job that refers to it is committed."""
    digest = bytes.fromhex((spec.code or "").removeprefix("sha256:"))
    touch = (
        update(CodeSnapshot)
        .where(CodeSnapshot.team_id == team_id, CodeSnapshot.sha256 == digest)
        .values(touched_at=func.now())
        .returning(CodeSnapshot.sha256)
    )
    if session.execute(touch).first() is None:
        raise InvalidInput(
            f"{spec.kind}.code", f"your team has stored no code {spec.code}", "upload it first: POST /api/v1/code"
        )
    return digest


def _check_secrets(session: Session, team_id: int, names: list[str]) -> None:
    if not names:
        return
    known = sorted(session.scalars(select(Secret.name).where(Secret.team_id == team_id)))
    for name in names:
        if name not in known:
            near = f"nearest: {_near(name, known)}; or add" if known else "add"
            raise InvalidInput("secrets", f"your team has no secret {name}", f"{near} it: stoker secret add {name}")


def _near(name: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(name, known, n=3) or known[:12])
