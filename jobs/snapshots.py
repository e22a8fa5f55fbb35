"""Code that a team has stored, once by content."""

from __future__ import annotations  # a Select of several columns cannot be written for every SQLAlchemy at run time

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import NotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.blobs import Stored
from stoker.jobs.models import Blob, CodeSnapshot, Team, User
from stoker.jobs.spec_code import code_digest
from stoker.jobs.visibility import visible


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeView:
    """Stored code as it is shown."""

    code: str  # sha256:…
    bytes: int  # of all files together
    files: int
    git: dict[str, Any] | None  # commit, branch, dirty, diff: as the client that stored it first saw them
    owner: str
    team: str
    created_at: datetime


def add_code(
    session: Session, caller: Caller, code: str, stored: Stored, summary: dict[str, Any]
) -> tuple[CodeView, bool]:
    """Keep code for the caller's team; returns it, and whether it is new."""
    added = (
        upsert(CodeSnapshot)
        .values(
            team_id=caller.team_id,
            sha256=_bytes(code),
            blob_id=stored.blob_id,
            summary=summary,
            created_by=caller.user_id,
        )
        .on_conflict_do_nothing()
        .returning(CodeSnapshot.sha256)
    )
    created = session.execute(added).first() is not None
    return touch_code(session, caller, code), created


def touch_code(session: Session, caller: Caller, code: str) -> CodeView:
    """Look at code that the caller may see, and keep it for another hour should no job refer to it.

    Raises InvalidInput: it is no digest; NotFound.
    """
    team_id = find_code(session, caller, code).team_id
    this = update(CodeSnapshot).where(CodeSnapshot.team_id == team_id, CodeSnapshot.sha256 == _bytes(code))
    session.execute(this.values(touched_at=func.now()))
    snapshot, owner, team = session.execute(_seen(caller, code)).one()
    return CodeView(
        code=code,
        bytes=snapshot.summary["bytes"],
        files=snapshot.summary["files"],
        git=snapshot.summary.get("git"),
        owner=owner,
        team=team,
        created_at=snapshot.created_at,
    )


def find_code(session: Session, caller: Caller, code: str) -> CodeSnapshot:
    """Code that the caller may see: that of the own team, for an admin else that of another.

    Raises InvalidInput: it is no digest; NotFound.
    """
    found: CodeSnapshot | None = session.scalars(_seen(caller, code_digest(code))).one_or_none()
    if found is None:
        raise NotFound("code", code, "upload it: POST /api/v1/code")
    return found


def find_content(session: Session, caller: Caller, code: str) -> tuple[int, int]:
    """Blob and bytes of the tar of code that the caller may see. Raises as ``find_code``."""
    blob = session.get_one(Blob, find_code(session, caller, code).blob_id)
    return blob.id, blob.bytes


def _seen(caller: Caller, code: str) -> Select[CodeSnapshot, str, str]:
    return (
        select(CodeSnapshot, User.name, Team.name)
        .join(User, User.id == CodeSnapshot.created_by)
        .join(Team, Team.id == CodeSnapshot.team_id)
        .where(CodeSnapshot.sha256 == _bytes(code), visible(caller, CodeSnapshot.team_id))
        .order_by(CodeSnapshot.team_id != caller.team_id)
        .limit(1)
    )


def _bytes(code: str) -> bytes:
    return bytes.fromhex(code.removeprefix("sha256:"))
