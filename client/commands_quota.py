"""`stoker quota` and `stoker usage`."""

import click

from stoker.client.administration import Item
from stoker.client.client import Client
from stoker.client.commands_admin import listed, tell
from stoker.client.screen import as_json, percent, print_json, print_table, say
from stoker.errors import InvalidInput
from stoker.quoting import quoted

_pool = click.option("--pool", default="default", show_default=True)


@click.group()
def quota() -> None:
    """What teams are guaranteed in a pool, and the most that they may use there."""


@quota.command("ls")
@as_json
def list_quotas(json_wanted: bool) -> None:
    """List the quotas of your team; for administrators all."""
    with Client() as client:
        items = client.administration.quotas()
    columns = ("TEAM", "POOL", "GPUS", "CPUS", "GPUS LIMIT", "CPUS LIMIT")
    listed(items, columns, json_wanted=json_wanted, right=columns[2:])


@quota.command("set")
@click.argument("team")
@_pool
@click.option("--gpus", type=float, help="Guaranteed; together teams cannot be guaranteed more than the pool has.")
@click.option("--cpus", type=float, help="Guaranteed to jobs without a GPU.")
@click.option("--gpus-limit", help='The most at once, or "none".')
@click.option("--cpus-limit", help='The most at once, or "none".')
@as_json
def set_quota(
    team: str,
    pool: str,
    gpus: float | None,
    cpus: float | None,
    gpus_limit: str | None,
    cpus_limit: str | None,
    json_wanted: bool,
) -> None:
    """Change what a team is guaranteed; what is not named stays."""
    changes: dict[str, float | None] = {k: v for k, v in (("gpus", gpus), ("cpus", cpus)) if v is not None}
    changes |= {
        f"{name}_limit": _limit(f"--{name}-limit", text)
        for name, text in (("gpus", gpus_limit), ("cpus", cpus_limit))
        if text is not None
    }
    if not changes:
        raise InvalidInput("quota", "nothing is to change", "give --gpus, --cpus, --gpus-limit or --cpus-limit")
    with Client() as client:
        made = client.administration.set_quota(team, pool, **changes)
    tell(made, f"team {made['team']} in pool {made['pool']}: {_words(made)}", json_wanted=json_wanted)


@quota.command("rm")
@click.argument("team")
@_pool
def remove_quota(team: str, pool: str) -> None:
    """Guarantee a team nothing in a pool, and set it no limit."""
    with Client() as client:
        client.administration.remove_quota(team, pool)
    say(f"team {team} has no quota in pool {pool} now")


def _limit(option: str, text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(option, f"{quoted(text, 40)} is not a number", 'give a number, or "none"') from None


def _words(made: Item) -> str:
    words = [f"{made['gpus']:g} GPUs and {made['cpus']:g} CPUs guaranteed"]
    words += [
        f"at most {made[f'{what}_limit']:g} {what.upper()[:-1]}s"
        for what in ("gpus", "cpus")
        if made[f"{what}_limit"] is not None
    ]
    return ", ".join(words)


@click.command()
@click.option("--by", type=click.Choice(["team", "user"]), default="team", show_default=True)
@click.option("--since", default="7d", show_default=True, help='How far back, such as "12h".')
@as_json
def usage(by: str, since: str, json_wanted: bool) -> None:
    """Show what was used: hours of GPUs and CPUs, jobs, the share of all use and that of all weights."""
    with Client() as client:
        report = client.administration.usage(by, since)
    if json_wanted:
        print_json(report)
        return
    columns = ("TEAM", "USER", "JOBS", "GPU HOURS", "CPU HOURS", "SHARE", "ENTITLED TO")
    rows = [
        (
            item["team"],
            item["user"],
            item["jobs"],
            f"{item['gpu_seconds'] / 3600:.1f}",
            f"{item['cpu_seconds'] / 3600:.1f}",
            percent(item["share"]),
            percent(item["entitled"]),
        )
        for item in report["items"]
    ]
    print_table(columns, rows, right=columns[2:])
