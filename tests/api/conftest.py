"""The application on a database of its own, and people of two teams who call it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.client.cli import cli
from stoker.jobs import accounts
from stoker.jobs.database import connect, sessions
from stoker.jobs.dispatcher import Spent
from stoker.jobs.models import Team, User
from stoker.settings import Settings
from tests.support.server import Server, serve

Run = Callable[..., Result]


class Kicks:
    """Stands where a dispatcher would, and counts how often it was woken."""

    spent = Spent(passes=4, seconds=0.5)

    def __init__(self) -> None:
        self.count = 0

    def start(self) -> None: ...

    def kick(self) -> None:
        self.count += 1

    def stop(self) -> None: ...


@dataclass(frozen=True)
class People:
    """Tokens, by user."""

    admin: str
    ada: str  # team vision
    bob: str  # team vision
    eve: str  # team nlp


@pytest.fixture
def factory(database_url: str) -> Iterator[sessionmaker[Session]]:
    engine = connect(database_url)
    yield sessions(engine)
    engine.dispose()


@pytest.fixture
def people(factory: sessionmaker[Session]) -> People:
    with factory() as session:
        admin = accounts.bootstrap(session)
        assert admin is not None
        tokens = {}
        for team, names in (("vision", ("ada", "bob")), ("nlp", ("eve",))):
            made = Team(name=team)
            session.add(made)
            session.flush()
            for name in names:
                user = User(name=name, team_id=made.id)
                session.add(user)
                session.flush()
                tokens[name] = accounts.add_token(session, user, "test")
        session.commit()
    return People(admin=admin, **tokens)


@pytest.fixture
def kicks() -> Kicks:
    return Kicks()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, home=tmp_path / "home", flower_url="http://flower.lab:5555/")


@pytest.fixture
def app(settings: Settings, kicks: Kicks) -> FastAPI:
    return create_app(settings, dispatcher=kicks)


@pytest.fixture
def client(app: FastAPI, people: People) -> Iterator[TestClient]:
    """Calls as ada, a member of team vision."""
    with TestClient(app, headers={"Authorization": f"Bearer {people.ada}"}, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def stranger(app: FastAPI, client: TestClient) -> TestClient:
    """Calls without any token; the application runs already."""
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def server(database_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real API, known to the command line by its environment."""
    with serve(database_url, home) as running:
        monkeypatch.setenv("STOKER_URL", running.url)
        monkeypatch.setenv("STOKER_TOKEN", running.token)
        monkeypatch.setenv("STOKER_HOME", str(home))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        yield running


@pytest.fixture
def run(server: Server) -> Run:
    """Run a command in this process."""
    return lambda *arguments, **options: CliRunner().invoke(cli, arguments, **options)
