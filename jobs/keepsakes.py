"""Secrets of a team: their names are shown, their values only to jobs that name them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput, NotFound
from stoker.jobs.accounts import Caller
from stoker.jobs.documents import unusable_character
from stoker.jobs.models import Secret, User
from stoker.jobs.spec_code import MAX_VARIABLE_BYTES, variable_name
from stoker.jobs.vault import Vault

MAX_SECRETS = 1000  # of one team


@dataclass(frozen=True, slots=True)
class SecretView:
    """A secret without its value."""

    name: str
    owner: str
    created_at: datetime


def list_secrets(session: Session, caller: Caller) -> list[SecretView]:
    """The secrets of the caller's team, by name."""
    statement = (
        select(Secret.name, User.name, Secret.created_at)
        .join(User, User.id == Secret.created_by)
        .where(Secret.team_id == caller.team_id)
        .order_by(Secret.name)
    )
    return [SecretView(*row) for row in session.execute(statement)]


def set_secret(session: Session, caller: Caller, vault: Vault, name: str, value: str) -> SecretView:
    """Keep a value under a name of the caller's team; a value that was there is replaced for jobs that start later.

    Raises InvalidInput: name or value cannot be a variable, there is no key, or there are too many.
    """
    _check(name, value)
    known = list_secrets(session, caller)
    if len(known) >= MAX_SECRETS and name not in {one.name for one in known}:
        raise InvalidInput("name", f"your team has {MAX_SECRETS} secrets", "remove one")
    added = upsert(Secret).values(
        team_id=caller.team_id,
        name=name,
        ciphertext=vault.seal(caller.team_id, name, value),
        created_by=caller.user_id,
    )
    latest = {"ciphertext": added.excluded.ciphertext, "created_by": caller.user_id, "created_at": func.now()}
    made = added.on_conflict_do_update(index_elements=["team_id", "name"], set_=latest).returning(Secret.created_at)
    return SecretView(name, caller.user, session.execute(made).scalar_one())


def _check(name: str, value: str) -> None:
    try:
        variable_name(name)
    except InvalidInput as error:
        raise InvalidInput("name", error.problem, error.fix) from None
    if not value:
        raise InvalidInput("value", "is empty", "give a value")
    if (size := len(value.encode(errors="replace"))) > MAX_VARIABLE_BYTES:
        raise InvalidInput("value", f"has {size:,} bytes", f"use at most {MAX_VARIABLE_BYTES:,}")
    if bad := unusable_character(value):
        raise InvalidInput("value", f"holds the character {bad}", "remove it")


def remove_secret(session: Session, caller: Caller, name: str) -> None:
    """Forget a secret; jobs that wait and name it fail when they start. Raises NotFound."""
    mine = delete(Secret).where(Secret.team_id == caller.team_id, Secret.name == name).returning(Secret.name)
    if session.execute(mine).first() is None:
        raise NotFound("secret", name, "`stoker secret ls` lists those of your team")
