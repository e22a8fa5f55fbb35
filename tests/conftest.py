"""Fixtures that everybody may use: real PostgreSQL, real Redis, a migrated database of one's own for each test."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from stoker.jobs import database, prospects
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis
from tests.support.services import make_template, quick_postgres, short_home

_numbers = itertools.count(1)


# Transactions of this process are made by tests, in no loop that would try again after a moment in which the machine
# stood still. Services and workers are other processes, and keep the limit.
database.IDLE_IN_TRANSACTION = "60s"
# What is told of starts does not depend on how much of the core this process got.
prospects.BUDGET_SECONDS = math.inf
# Who asks why a job waits right after something has happened is told what is so now.
prospects.REASONS_SECONDS = 0.0
# Nor is an example wrong, or too hard to make, because other processes took the core.
settings.register_profile("shared cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared cores")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL cluster for this pytest process. To stop or kill a server, start one of your own."""
    with quick_postgres() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """The name of a migrated database to which nobody is connected."""
    return make_template(postgres)


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a new database without any table."""
    name = f"empty_{next(_numbers)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: Postgres, template_database: str) -> Iterator[str]:
    """SQLAlchemy URL of a new migrated database; dropped afterwards, whoever is still connected."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template_database)
    postgres.drop_database(name)


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    """A new Redis, which the test may kill and restart (``.child.kill()``, ``.restart()``)."""
    with short_home() as home, Redis.start(home) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """Broker URL of a new Redis."""
    return redis_server.url


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty STOKER_HOME with a short path."""
    with short_home() as folder:
        yield folder
