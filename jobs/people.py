"""Teams and users as administrators keep them. Every change leaves an event with its actor."""

import difflib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, ScalarSelect, delete, func, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from stoker.errors import Conflict, InvalidInput, NotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.models import Team, TeamQuota, User
from stoker.jobs.moves import add_event, notify
from stoker.jobs.pages import Page, cursor, position
from stoker.jobs.recipients import mailbox
from stoker.quoting import quoted, shown

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)  # one way to write each: no two look alike
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0

Role = Literal["member", "admin"]


class NameInUse(Conflict):
    """There is a team or user of this name already."""

    code = "name_in_use"


class InUse(Conflict):
    """What others refer to cannot be removed."""

    code = "in_use"


class LastAdmin(Conflict):
    """Somebody has to be left who may change all this."""

    code = "last_admin"


@dataclass(frozen=True, slots=True)
class TeamView:
    """A team as it is shown."""

    name: str
    weight: float
    users: int  # that may sign in
    created_at: datetime


@dataclass(frozen=True, slots=True)
class UserView:
    """A user as it is shown."""

    name: str
    team: str
    role: str
    disabled_at: datetime | None
    created_at: datetime
    email: str | None


def checked_name(field: str, name: str) -> str:
    """A name for a team or a user; raises InvalidInput."""
    if not NAME.fullmatch(name):
        fix = "use a-z 0-9 . _ @ -, at most 64, a letter or digit first"
        raise InvalidInput(field, f"{quoted(name)} is not a name", fix)
    return name


def checked_weight(weight: float) -> float:
    """A team's weight; raises InvalidInput."""
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        fix = f"use {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
        raise InvalidInput("weight", f"{weight:g} is out of range", fix)
    return weight


def find_team(session: Session, name: str, *, lock: bool = False) -> Team:
    """A team by its name; raises NotFound, naming the nearest."""
    wanted = select(Team).where(Team.name == name)
    team = session.scalars(wanted.with_for_update() if lock else wanted).one_or_none()
    if team is None:
        known = list(session.scalars(select(Team.name).order_by(Team.name)))
        near = difflib.get_close_matches(name[:100], known, n=3) or known[:12]
        raise NotFound("team", shown(name), f"known: {', '.join(near)}")
    return team


def find_user(session: Session, name: str, *, lock: bool = False) -> User:
    """A user by name; raises NotFound."""
    wanted = select(User).where(User.name == name)
    user = session.scalars(wanted.with_for_update() if lock else wanted).one_or_none()
    if user is None:
        raise NotFound("user", shown(name), "see `stoker user ls`")
    return user


def add_team(session: Session, name: str, weight: float, *, actor: str) -> Team:
    """Add a team; raises InvalidInput, NameInUse."""
    team = Team(name=checked_name("name", name), weight=checked_weight(weight))
    _add(session, team, "team", name)
    add_event(session, "team_added", actor=actor, reason=f"{name}, weight {weight:g}")
    return team


def change_team(session: Session, name: str, weight: float, *, actor: str) -> Team:
    """Give a team another weight; raises InvalidInput, NotFound."""
    team = find_team(session, name, lock=True)
    if team.weight != checked_weight(weight):
        add_event(session, "team_changed", actor=actor, reason=f"{name}: weight {team.weight:g} → {weight:g}")
        team.weight = weight
        session.flush()
        notify(session)
    return team


def remove_team(session: Session, name: str, *, actor: str) -> None:
    """Remove a team to which nothing belongs or ever belonged but quotas; raises NotFound, InUse."""
    team = find_team(session, name, lock=True)
    try:
        with session.begin_nested():
            session.execute(delete(TeamQuota).where(TeamQuota.team_id == team.id))
            session.delete(team)
    except IntegrityError:
        raise InUse(f"team {name} has users, jobs or data: move the users first; a team with jobs stays") from None
    add_event(session, "team_removed", actor=actor, reason=name)


def add_user(session: Session, name: str, team: str, role: Role, *, actor: str, email: str | None = None) -> User:
    """Add a user; raises InvalidInput, NotFound for the team, NameInUse."""
    address = mailbox(email, "email").shown if email else None
    user = User(name=checked_name("name", name), team_id=find_team(session, team).id, role=role, email=address)
    _add(session, user, "user", name)
    add_event(session, "user_added", actor=actor, reason=f"{name}, team {team}, {role}")
    return user


def _add(session: Session, row: Team | User, kind: str, name: str) -> None:
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise NameInUse(f"there is a {kind} {name} already") from None


def change_user(
    session: Session,
    name: str,
    *,
    actor: str,
    team: str | None = None,
    role: Role | None = None,
    disabled: bool | None = None,
    email: str | None = None,
) -> User:
    """Move a user, give another role or mail address, or let them sign in no more; None leaves a thing as it is.

    Jobs stay with the team for which they were submitted; an empty ``email`` takes the address away.
    Raises NotFound, LastAdmin, InvalidInput.
    """
    admins = _lock_admins(session)
    user = find_user(session, name, lock=True)
    changes: list[str] = []
    if team is not None and (new := find_team(session, team)).id != user.team_id:
        user.team_id = new.id
        changes.append(f"to team {team}")
    if role is not None and role != user.role:
        user.role = role
        changes.append(f"is {role} now")
    if disabled is not None and disabled != (user.disabled_at is not None):
        user.disabled_at = func.now() if disabled else None
        changes.append("may sign in no more" if disabled else "may sign in again")
    if email is not None and (address := mailbox(email, "email").shown if email else None) != user.email:
        user.email = address
        changes.append(f"gets mail at {address}" if address else "gets no mail")
    session.flush()
    session.refresh(user)
    if admins == [user.id] and (user.role != "admin" or user.disabled_at is not None):
        raise LastAdmin(f"{name} is the last administrator: make another one first")
    if changes:
        add_event(session, "user_changed", actor=actor, reason=f"{name} {', '.join(changes)}")
    return user


def _lock_admins(session: Session) -> list[int]:
    """The administrators who may sign in; locked, so that two cannot demote each other at once."""
    may = select(User.id).where(User.role == "admin", User.disabled_at.is_(None))
    return list(session.scalars(may.order_by(User.id).with_for_update()))


def in_team(caller: Caller) -> ColumnElement[bool]:
    """Which teams a caller may see: members their own, administrators all."""
    return true() if caller.admin else Team.id == caller.team_id


def list_teams(session: Session, caller: Caller, limit: int, after: str | None) -> Page[TeamView]:
    """The teams that the caller may see, the oldest first."""
    statement = (
        select(Team, _members())
        .where(in_team(caller), Team.id > (position("team", after) or 0))
        .order_by(Team.id)
        .limit(limit + 1)
    )
    rows = session.execute(statement).all()
    found = [TeamView(team.name, team.weight, count, team.created_at) for team, count in rows[:limit]]
    return Page(found, cursor("team", rows[limit - 1][0].id) if len(rows) > limit else None)


def view_team(session: Session, team: Team) -> TeamView:
    """A team as it is shown."""
    count = session.scalar(select(_members()).where(Team.id == team.id))
    return TeamView(team.name, team.weight, int(count or 0), team.created_at)


def _members() -> ScalarSelect[int]:
    """How many users of a team may sign in."""
    return select(func.count()).where(User.team_id == Team.id, User.disabled_at.is_(None)).scalar_subquery()


def list_users(session: Session, caller: Caller, limit: int, after: str | None) -> Page[UserView]:
    """The users of the teams that the caller may see, the oldest first."""
    statement = (
        select(User, Team.name)
        .join(Team, Team.id == User.team_id)
        .where(in_team(caller), User.id > (position("user", after) or 0))
        .order_by(User.id)
        .limit(limit + 1)
    )
    rows = session.execute(statement).all()
    found = [view_user(user, team) for user, team in rows[:limit]]
    return Page(found, cursor("user", rows[limit - 1][0].id) if len(rows) > limit else None)


def view_user(user: User, team: str) -> UserView:
    """A user as it is shown."""
    return UserView(user.name, team, user.role, user.disabled_at, user.created_at, user.email)
