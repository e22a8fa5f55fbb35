"""`stoker api`, `stoker worker` and `stoker migrate`: services that live in other parts, started or asked."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal, NoReturn

import click

from stoker.client.client import Client
from stoker.client.screen import as_json, print_json, safe
from stoker.errors import SettingInvalid
from stoker.settings import load


def need(extra: str, *modules: str) -> None:
    """Raise click's ClickException, naming the extra, when one of its modules is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise click.ClickException(f'{module} is not installed: pip install "stoker[{extra}]"')


def become(module: str) -> NoReturn:
    """Replace this process by a service, so that signals and the exit code are its own."""
    sys.stdout.flush()
    # -P: a folder here that is named stoker is not ours
    os.execv(sys.executable, [sys.executable, "-P", "-m", module])  # noqa: S606 - no shell is meant


@click.command()
def api() -> None:
    """Run the API in the foreground: STOKER_DATABASE_URL, STOKER_BROKER_URL, STOKER_API_HOST, STOKER_API_PORT."""
    need("api", "fastapi", "uvicorn", "sqlalchemy")
    load(os.environ)  # a wrong setting is said here, in one line
    become("stoker.api")


@click.group()
def worker() -> None:
    """Run a worker, drain one, resume one."""


@worker.command()
@click.argument("name", required=False)
def start(name: str | None) -> None:
    """Run a worker in the foreground; NAME (default: the host's) must stay the same over restarts."""
    need("worker", "celery", "sqlalchemy", "torch")
    if name:
        os.environ["STOKER_WORKER_NAME"] = name
    load(os.environ)
    become("stoker.workers")


@worker.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="What runs there writes a checkpoint and goes on elsewhere.")
@as_json
def drain(name: str, now: bool, json_wanted: bool) -> None:
    """Give a worker no new jobs; those that run finish. For administrators."""
    _ask(name, "drain", json_wanted, now=now)


@worker.command()
@click.argument("name")
@as_json
def resume(name: str, json_wanted: bool) -> None:
    """Undo a drain. For administrators."""
    _ask(name, "resume", json_wanted)


def _ask(name: str, verb: Literal["drain", "resume"], json_wanted: bool, *, now: bool = False) -> None:
    with Client() as client:
        client.steer_worker(name, verb, now=now)
    if json_wanted:
        print_json({"name": name, "draining": verb == "drain"})
    else:
        click.echo(safe(f"{name}: {'takes no new jobs' if verb == 'drain' else 'takes jobs again'}"))


@click.command()
@click.option("--token-file", help="On a new database: make the administrator, and write the token here.")
def migrate(token_file: str | None) -> None:
    """Bring the tables of STOKER_DATABASE_URL up to date."""
    need("database", "sqlalchemy", "alembic", "psycopg")
    url = load(os.environ).database_url
    if url is None:
        raise SettingInvalid(
            "STOKER_DATABASE_URL", "is not set", "write postgresql+psycopg://user:password@host/stoker"
        )
    importlib.import_module("stoker.jobs.database").upgrade(url)
    click.echo("the tables are up to date")
    if token_file is not None:
        _bootstrap(url, Path(token_file))


def _bootstrap(url: str, path: Path) -> None:
    """Make the first team and user, once; the token goes into a file that only this user can read."""
    database = importlib.import_module("stoker.jobs.database")
    engine = database.connect(url, pool_size=1)
    try:
        with database.sessions(engine)() as session:
            token = importlib.import_module("stoker.jobs.accounts").bootstrap(session)
            if token is None:
                click.echo("there are users already; no token was made", err=True)
                return
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
                file.write(token + "\n")
            session.commit()  # after the file: a token that nobody can read must not be the only one
    finally:
        engine.dispose()
    click.echo(f"the administrator's token is in {path}")
