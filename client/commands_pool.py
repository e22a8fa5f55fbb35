"""`stoker pool`."""

import click

from stoker.client.client import Client
from stoker.client.commands_admin import tell
from stoker.client.screen import as_json, print_json, print_table
from stoker.errors import InvalidInput

COLUMNS = ("POOL", "WORKERS", "PARTS OF A GPU")


@click.group()
def pool() -> None:
    """Pools of workers, and whether jobs may share a GPU there."""


@pool.command("ls")
@as_json
def list_pools(json_wanted: bool) -> None:
    """List the pools."""
    with Client() as client:
        items = client.administration.pools()
    if json_wanted:
        print_json({"items": items})
    else:
        rows = [(item["name"], item["workers"], "yes" if item["fractions"] else "no") for item in items]
        print_table(COLUMNS, rows, right=("WORKERS",))


@pool.command("set")
@click.argument("name")
@click.option("--fractions/--no-fractions", default=None, help="Whether jobs may ask for a part of a GPU.")
@as_json
def set_pool(name: str, fractions: bool | None, json_wanted: bool) -> None:
    """Allow jobs to ask for a part of a GPU in a pool, or no longer; a device is shared within one team."""
    if fractions is None:
        raise InvalidInput("pool", "nothing is to change", "give --fractions or --no-fractions")
    with Client() as client:
        made = client.administration.set_pool(name, fractions=fractions)
    words = "may" if made["fractions"] else "may not"
    tell(made, f"jobs in pool {made['name']} {words} ask for a part of a GPU", json_wanted=json_wanted)
