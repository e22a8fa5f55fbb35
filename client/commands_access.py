"""`stoker login`, `stoker whoami` and `stoker config`."""

import dataclasses
import os
import sys

import click

from stoker.client.access import checked_url, remember, resolve
from stoker.client.client import Client
from stoker.client.errors import NoServer
from stoker.client.screen import as_json, print_json, print_table, safe, say
from stoker.client.transport import is_loopback
from stoker.errors import InvalidInput
from stoker.settings import PREFIX, Settings, load


@click.command()
@click.argument("url")
def login(url: str) -> None:
    """Keep the address and token of a server, readable by you alone.

    The token is asked for, or read from stdin where that is no terminal: it never stands in a command line.
    """
    url = checked_url(url)
    asked = sys.stdin.isatty()
    token = (click.prompt("Token", hide_input=True, err=True) if asked else sys.stdin.readline()).strip()
    if not token.startswith("stk_") or not token.isascii():
        raise InvalidInput("token", "is no token", "paste the text that begins with stk_")
    if url.startswith("http://") and not is_loopback(url):
        say("warning: over http:// the token can be read on its way; https:// is better")
    with Client(url, token) as client:
        user = client.whoami()
    path = remember(url, token)
    click.echo(safe(f"{user['user']} (team {user['team']}, {user['role']}) at {url}; kept in {path}"))


@click.command()
@as_json
def whoami(json_wanted: bool) -> None:
    """Show the user, team and role behind the token."""
    with Client() as client:
        user = client.whoami()
        url = client.url
    if json_wanted:
        print_json(user)
    else:
        click.echo(safe(f"{user['user']} (team {user['team']}, {user['role']}) at {url}"))


@click.command()
@as_json
def config(json_wanted: bool) -> None:
    """Show each setting and where it came from; secrets are not shown."""
    settings = load(os.environ)
    rows = [(f"{PREFIX}{field.name.upper()}", *_setting(settings, field)) for field in dataclasses.fields(settings)]
    rows += _access(settings)
    if json_wanted:
        print_json({"items": [dict(zip(("name", "value", "source"), row, strict=True)) for row in rows]})
    else:
        print_table(("SETTING", "VALUE", "FROM"), rows)


def _setting(settings: Settings, field: "dataclasses.Field[object]") -> tuple[str | None, str]:
    value = getattr(settings, field.name)
    name = f"{PREFIX}{field.name.upper()}"
    source = next((f"environment, {n}" for n in (f"{name}_FILE", name) if os.environ.get(n)), "default")
    if field.metadata.get("secret") and value is not None:
        return "(set, not shown)", source
    return None if value is None else str(value), source


def _access(settings: Settings) -> list[tuple[str, str | None, str]]:
    try:
        access = resolve(settings)
    except NoServer:
        return [("server", None, "none known")]
    token = "(set, not shown)" if access.token else None
    return [("server", access.url, access.url_source), ("token", token, access.token_source or "none for this address")]
