"""`stoker watch`, `stoker wait` and `stoker logs`."""

import time
from collections.abc import Iterator

import click

from stoker.client.client import Client
from stoker.client.exits import CANCELLED, FAILED, NOT_FINISHED, OK, fate
from stoker.client.follow import detached_by_interrupt, follow_to_the_end
from stoker.client.job import Job
from stoker.client.screen import as_json, print_json, safe_lines, say

WORST_FIRST = (FAILED, NOT_FINISHED, CANCELLED, OK)


@click.command()
@click.argument("job")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds until exit code 101; the job goes on.")
@as_json
def watch(job: str, timeout: float | None, json_wanted: bool) -> None:
    """Follow a job with a progress bar; the exit code is its fate. Ctrl-C leaves the job alone.

    --json writes one object a line.
    """
    with Client() as client:
        follow_to_the_end(client.job(job), json_wanted=json_wanted, timeout=timeout)


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds until exit code 101; the jobs go on.")
@as_json
def wait(jobs: tuple[str, ...], timeout: float | None, json_wanted: bool) -> None:
    """Wait until all jobs have ended. Exit code: 100 if one failed, else 101 if one has not ended, else 103, else 0."""
    deadline = None if timeout is None else time.monotonic() + timeout
    codes, documents = [], []
    with Client() as client:
        for job in [client.job(which) for which in jobs]:
            with detached_by_interrupt(job):
                state = _state_at(job, deadline)
            codes.append(fate(state))
            documents.append(job.document)
            if not json_wanted:
                say(f"job {job.number} {job.name}: {state}")
    if json_wanted:
        print_json({"items": documents})
    raise click.exceptions.Exit(next(code for code in WORST_FIRST if code in codes))


def _state_at(job: Job, deadline: float | None) -> str:
    try:
        return job.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        return str(job.document["state"])


@click.command()
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends; the exit code is its fate.")
@click.option("--tail", type=click.IntRange(min=1), help="Only the last lines.")
@as_json
def logs(job: str, follow: bool, tail: int | None, json_wanted: bool) -> None:
    """Print what a job printed. Colours are dropped, control characters spelled out."""
    with Client() as client:
        found = client.job(job)
        pieces: list[dict[str, object]] = []
        last = 0
        for item in found.log_items(tail=tail):
            last = item["id"]
            if json_wanted and not follow:
                pieces.append(item)
            else:
                _print(item, json_wanted)
        if follow:
            with detached_by_interrupt(found):
                for item in _news(found, last):
                    _print(item, json_wanted)
                raise click.exceptions.Exit(fate(found.wait()))
    if json_wanted:
        print_json({"items": pieces})


def _print(item: dict[str, object], json_wanted: bool) -> None:
    if json_wanted:
        print_json(item)
    else:
        click.echo(safe_lines(str(item["text"])), nl=False)


def _news(job: Job, last: int) -> Iterator[dict[str, object]]:
    """Yield what is printed from now on, each piece once: the stream says when to look."""
    for event in job.events():
        if event.kind in {"log", "end"}:
            for item in job.log_items(after=last):
                last = item["id"]
                yield item
