"""`stoker secret`: values that only a team's jobs get to see."""

import sys

import click

from stoker.client.client import Client
from stoker.client.screen import as_json, print_json, print_table, say


@click.group()
def secret() -> None:
    """Keep, list and remove a team's secrets; a job that names one has it as a variable."""


@secret.command()
@click.argument("name")
@as_json
def add(name: str, json_wanted: bool) -> None:
    """Keep a value under a name; it comes from a prompt or stdin, never from the command line."""
    value = str(click.prompt("Value", hide_input=True, err=True)) if sys.stdin.isatty() else sys.stdin.read()
    with Client() as client:
        made = client.set_secret(name, value.removesuffix("\n"))
    if json_wanted:
        print_json(made)
    else:
        say(f"kept {made['name']}; name it in a job: stoker run --secret {made['name']} -- …")


secret.add_command(add, "set")


@secret.command()
@as_json
def ls(json_wanted: bool) -> None:
    """List the names; a value is never shown again."""
    with Client() as client:
        items = client.secrets()
    if json_wanted:
        print_json({"items": items})
    else:
        print_table(("NAME", "SET BY", "AT"), [(one["name"], one["owner"], one["created_at"]) for one in items])


@secret.command()
@click.argument("name")
def rm(name: str) -> None:
    """Forget a secret; a job that waits and names it fails when it starts."""
    with Client() as client:
        client.remove_secret(name)
    say(f"removed {name}")
