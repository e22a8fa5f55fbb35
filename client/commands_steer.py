"""`stoker cancel`, `hold`, `release`, `retry`, `preempt`, `priority`, `first`: one act on jobs."""

from collections.abc import Callable

import click

from stoker.client.client import Client
from stoker.client.exits import OK, code_of
from stoker.client.job import Job
from stoker.client.screen import as_json, print_json, safe
from stoker.errors import StokerError
from stoker.jobs.spec import PRIORITIES

_jobs = click.argument("jobs", nargs=-1, required=True, metavar="JOB…")


def _steer(jobs: tuple[str, ...], json_wanted: bool, act: Callable[[Job], Job], said: Callable[[Job], str]) -> None:
    """Do one thing to each job; say what became of it, and go on after an error."""
    code, documents = OK, []
    with Client() as client:
        for which in jobs:
            try:
                job = act(client.job(which))
            except StokerError as error:
                code = max(code, code_of(error))
                click.echo(f"Error: {safe(error)}", err=True)
                continue
            documents.append(job.document)
            if not json_wanted:
                click.echo(f"{job.number} {said(job)}")
    if json_wanted:
        print_json({"items": documents})
    raise click.exceptions.Exit(code)


def _state(job: Job) -> str:
    return str(job.document["state"])


@click.command()
@_jobs
@as_json
def cancel(jobs: tuple[str, ...], json_wanted: bool) -> None:
    """Stop jobs, or take them out of the queue. Cancelling twice is no error; a job that has ended is."""
    _steer(
        jobs, json_wanted, Job.cancel, lambda job: _state(job) + ("" if _state(job) == "cancelled" else ", is stopping")
    )


@click.command()
@_jobs
@as_json
def hold(jobs: tuple[str, ...], json_wanted: bool) -> None:
    """Keep waiting jobs from starting, until `stoker release`."""
    _steer(jobs, json_wanted, Job.hold, lambda job: f"{_state(job)}, held")


@click.command()
@_jobs
@as_json
def release(jobs: tuple[str, ...], json_wanted: bool) -> None:
    """Let held jobs take their turn again."""
    _steer(jobs, json_wanted, Job.release, _state)


@click.command()
@_jobs
@as_json
def preempt(jobs: tuple[str, ...], json_wanted: bool) -> None:
    """Ask running jobs to make room: each writes a checkpoint, stops, and goes on later from there."""
    _steer(jobs, json_wanted, Job.preempt, lambda job: f"{_state(job)}, makes room")


@click.command()
@_jobs
@click.option("--from-checkpoint", "checkpoint", type=click.Choice(["latest", "best"]), default="latest")
@click.option("--from-scratch", "scratch", is_flag=True, help="Forget all checkpoints.")
@as_json
def retry(jobs: tuple[str, ...], checkpoint: str, scratch: bool, json_wanted: bool) -> None:
    """Queue failed or cancelled jobs again."""
    origin = "scratch" if scratch else checkpoint
    _steer(jobs, json_wanted, lambda job: job.retry(origin), _state)


@click.command()
@click.argument("job")
@click.argument("level", type=click.Choice(list(PRIORITIES)))
@as_json
def priority(job: str, level: str, json_wanted: bool) -> None:
    """Give a job another priority. A team may have one urgent job at a time; administrators any number."""
    _steer((job,), json_wanted, lambda found: found.priority(level), lambda found: f"{_state(found)}, {level}")


@click.command()
@click.argument("job")
@as_json
def first(job: str, json_wanted: bool) -> None:
    """Let a waiting job go before your other ones of its priority; nobody else's turn changes."""
    _steer((job,), json_wanted, Job.first, lambda found: f"{_state(found)}, first of {found.document['owner']}")
