"""What the routes of one application share, made once in ``create_app``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.feed import Feed
from stoker.api.signin import SignIn
from stoker.jobs.dispatcher import Spent
from stoker.jobs.prospects import Foresight
from stoker.jobs.vault import Vault
from stoker.messages.carrier import Carrier
from stoker.settings import Settings


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things happen on a live stream."""

    between_seconds: float = 0.5  # two looks at the database are at least so far apart
    look_seconds: float = 5.0  # and at most so far, should a wake-up get lost
    heartbeat_seconds: float = 15.0  # of silence, before a comment shows that the stream is alive


@dataclass(frozen=True, slots=True)
class Services:
    """Settings, sessions, and what else a route may need."""

    settings: Settings
    sessions: sessionmaker[Session]
    sign_in: SignIn
    feed: Feed
    kick: Callable[[], None]  # wakes the dispatcher; never waits
    pace: Pace
    vault: Vault  # for the secrets of jobs
    spent: Callable[[], Spent]  # by the dispatcher of this process
    foresight: Foresight  # what estimates are made of
    carrier: Carrier  # whom jobs may notify, and how


async def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)  # noqa: S101 - narrows the type of Starlette's untyped state
    return services


Shared = Annotated[Services, Depends(_services)]
