"""`stoker queue`, `stoker why` and `stoker plan`: what waits, for what, and until when."""

from typing import Any

import click

from stoker.client.client import Client
from stoker.client.forecasts import behind_whom, range_of, seconds_until, spoken, starts_in
from stoker.client.screen import as_json, duration, percent, print_json, print_table, safe, say, seconds_since
from stoker.client.specfile import read_spec

QUEUE = ("#", "JOB", "NAME", "OWNER", "TEAM", "PRIORITY", "WAITED", "STARTS", "WAITS FOR")
TEAMS = ("TEAM", "WEIGHT", "SHARE USED", "ENTITLED TO", "GPUS", "CPUS", "RUNNING", "WAITING")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Numbers only.")
@as_json
def queue(limit: int, quiet: bool, json_wanted: bool) -> None:
    """Show what waits, the next to start first: why, and until when; then how the teams' shares stand.

    You see the jobs of your team; positions count those of others too.
    """
    with Client() as client:
        view = client.queue(limit)
    if json_wanted:
        print_json(view)
    elif quiet:
        for item in view["items"]:
            click.echo(item["number"])
    else:
        print_table(QUEUE, [_row(item) for item in view["items"]], right=("#", "JOB", "WAITED"))
        click.echo()
        print_table(TEAMS, [_team(team) for team in view["teams"]], right=TEAMS[1:])
        say(_accuracy(view))


def _row(item: dict[str, Any]) -> tuple[object, ...]:
    why = item["why"]
    waited = duration(seconds_since(item["queued_at"]))
    names = (item["number"], item["name"], item["owner"], item["team"], item["priority"])
    return (why["position"], *names, waited, starts_in(why), why["sentence"])


def _team(team: dict[str, Any]) -> tuple[object, ...]:
    shares = (percent(team["share"]), percent(team["entitled"]))
    held = (f"{team['gpus']:g}", f"{team['cpus']:g}", team["running"], team["waiting"])
    return (team["team"], f"{team['weight']:g}", *shares, *held)


def _accuracy(view: dict[str, Any]) -> str:
    past, hidden = view["estimates"], view["waiting"] - len(view["items"])
    words = f"{hidden} more wait; " if hidden > 0 else ""
    if not past["waits"]:
        return words + "no job has waited yet that was told when it would start, and waited for a minute"
    error, bias = percent(past["median_error"]), 100 * past["bias"]
    lean = "too late" if bias > 0 else "too early"
    return f"{words}of {past['waits']} waits the estimate was off by {error} (median), {abs(bias):.1f} % {lean}"


@click.command()
@click.argument("job")
@as_json
def why(job: str, json_wanted: bool) -> None:
    """Say what a job waits for, its place in the queue, when it will start, and what would help."""
    with Client() as client:
        found = client.job(job)
        told = found.why()
    if json_wanted:
        print_json(told)
    elif told["code"] == found.document["state"]:
        end = seconds_until((told.get("expected") or {}).get("end_at"))
        ending = f"; ends in about {spoken(end)}" if end is not None and end > 0 else ""
        click.echo(f"job {found.number} does not wait: {told['sentence']}{ending}")
    else:
        _explain(told)


@click.command()
@click.argument("spec", metavar="SPEC.yaml")
@as_json
def plan(spec: str, json_wanted: bool) -> None:
    """Say what would become of a job if it were submitted now: whether it starts, where, when; or what it waits for.

    Nothing is stored. What no worker could ever run is refused, with the largest that there is. `-` reads stdin.
    """
    document = read_spec(spec)
    with Client() as client:
        told = client.plan(document)
    if json_wanted:
        print_json(told)
    elif told["code"] == "next":
        click.echo(safe(f"would start at once on {told['where']}"))
    else:
        _explain(told)


def _explain(told: dict[str, Any]) -> None:
    place = f"#{told['position']} in queue: " if told.get("position") else ""
    click.echo(safe(f"{place}{told['sentence']} ({told['code']})"))
    if behind := behind_whom(told):
        click.echo(safe(f"behind {behind}"))
    if starts := range_of(told):
        where = f" on {told['where']}" if told.get("where") else ""
        click.echo(safe(f"starts {starts}{where}"))
    for help_ in told.get("helps") or []:
        click.echo(safe(f"would help: {help_}"))
