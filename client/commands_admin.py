"""`stoker team`, `stoker user` and `stoker token`."""

import click

from stoker.client.administration import Item
from stoker.client.client import Client
from stoker.client.screen import as_json, print_json, print_table, safe, say

_user = click.option("--user", help="Whose; default: your own.")


def tell(item: Item, words: str, *, json_wanted: bool) -> None:
    """Print what became of a change."""
    if json_wanted:
        print_json(item)
    else:
        click.echo(safe(words))


def listed(items: list[Item], columns: tuple[str, ...], *, json_wanted: bool, right: tuple[str, ...] = ()) -> None:
    """Print a list; a column's heading is its field in capitals."""
    if json_wanted:
        print_json({"items": items})
    else:
        fields = [column.lower().replace(" ", "_") for column in columns]
        print_table(columns, [[_cell(item.get(field)) for field in fields] for item in items], right=right)


def _cell(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


@click.group()
def team() -> None:
    """Add, list, change and remove teams."""


@team.command("add")
@click.argument("name")
@click.option("--weight", type=float, default=1.0, show_default=True, help="Against those of the other teams.")
@as_json
def add_team(name: str, weight: float, json_wanted: bool) -> None:
    """Add a team."""
    with Client() as client:
        made = client.administration.add_team(name, weight)
    tell(made, f"team {made['name']} added, weight {made['weight']:g}", json_wanted=json_wanted)


@team.command("ls")
@as_json
def list_teams(json_wanted: bool) -> None:
    """List your team; for administrators all."""
    with Client() as client:
        items = client.administration.teams()
    listed(items, ("NAME", "WEIGHT", "USERS", "CREATED AT"), json_wanted=json_wanted, right=("WEIGHT", "USERS"))


@team.command("set")
@click.argument("name")
@click.option("--weight", type=float, required=True)
@as_json
def set_team(name: str, weight: float, json_wanted: bool) -> None:
    """Give a team another weight: twice the weight, twice the share of what is asked for by all."""
    with Client() as client:
        made = client.administration.set_team(name, weight)
    tell(made, f"team {made['name']} has weight {made['weight']:g}", json_wanted=json_wanted)


@team.command("rm")
@click.argument("name")
def remove_team(name: str) -> None:
    """Remove a team that has no user, job or data."""
    with Client() as client:
        client.administration.remove_team(name)
    click.echo(safe(f"team {name} removed"))


@click.group()
def user() -> None:
    """Add, list and change users."""


@user.command("add")
@click.argument("name")
@click.option("--team", "team_name", required=True)
@click.option("--role", type=click.Choice(["member", "admin"]), default="member", show_default=True)
@click.option("--email", help="Where notifications of their jobs may go.")
@as_json
def add_user(name: str, team_name: str, role: str, email: str | None, json_wanted: bool) -> None:
    """Add a user to a team."""
    with Client() as client:
        made = client.administration.add_user(name, team_name, role, email)
    tell(made, f"{made['name']} added (team {made['team']}, {made['role']})", json_wanted=json_wanted)
    say(f"`stoker token add laptop --user {name}` makes a token")


@user.command("ls")
@as_json
def list_users(json_wanted: bool) -> None:
    """List the users of your team; for administrators all."""
    with Client() as client:
        items = client.administration.users()
    listed(items, ("NAME", "TEAM", "ROLE", "EMAIL", "CREATED AT", "DISABLED AT"), json_wanted=json_wanted)


@user.command("set")
@click.argument("name")
@click.option("--team", "team_name", help="Jobs stay with the team for which they were submitted.")
@click.option("--role", type=click.Choice(["member", "admin"]))
@click.option("--email", help="Where notifications of their jobs may go; an empty one takes it away.")
@click.option("--enable", is_flag=True, help="Let a removed user sign in again.")
@as_json
def set_user(
    name: str, team_name: str | None, role: str | None, email: str | None, enable: bool, json_wanted: bool
) -> None:
    """Move a user to another team, give another role or mail address, let them sign in again."""
    disabled = False if enable else None
    with Client() as client:
        made = client.administration.set_user(name, team=team_name, role=role, disabled=disabled, email=email)
    tell(made, f"{made['name']} (team {made['team']}, {made['role']})", json_wanted=json_wanted)


@user.command("rm")
@click.argument("name")
@as_json
def remove_user(name: str, json_wanted: bool) -> None:
    """Let a user sign in no more. Their jobs and results stay; `stoker cancel` ends what shall not go on."""
    with Client() as client:
        made = client.administration.set_user(name, disabled=True)
    tell(made, f"{made['name']} may sign in no more", json_wanted=json_wanted)


@click.group()
def token() -> None:
    """Make, list and revoke tokens."""


@token.command("add")
@click.argument("name")
@_user
@click.option("--expires", help='After so long, such as "30d"; default: when it is revoked.')
@as_json
def add_token(name: str, user: str | None, expires: str | None, json_wanted: bool) -> None:
    """Make a token and print it, this once."""
    with Client() as client:
        made = client.administration.add_token(name, user=user, expires=expires)
    tell(made, made["token"], json_wanted=json_wanted)
    say(f"a token of {made['user']}; it is not shown again")


@token.command("ls")
@_user
@as_json
def list_tokens(user: str | None, json_wanted: bool) -> None:
    """List tokens that were not revoked; the tokens themselves are not kept."""
    with Client() as client:
        items = client.administration.tokens(user)
    listed(items, ("ID", "NAME", "CREATED AT", "EXPIRES AT"), json_wanted=json_wanted, right=("ID",))


@token.command("rm")
@click.argument("number", metavar="ID", type=int)
@_user
def remove_token(number: int, user: str | None) -> None:
    """Take a token out of use."""
    with Client() as client:
        client.administration.remove_token(number, user=user)
    click.echo(f"token {number} is worth nothing now")
