"""`stoker cancel`."""

import click

from stoker.client.client import Client
from stoker.client.exits import OK, code_of
from stoker.client.screen import as_json, print_json, safe
from stoker.errors import StokerError


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@as_json
def cancel(jobs: tuple[str, ...], json_wanted: bool) -> None:
    """Stop jobs, or take them out of the queue. Cancelling twice is no error; a job that has ended is."""
    code, documents = OK, []
    with Client() as client:
        for which in jobs:
            try:
                job = client.job(which).cancel()
            except StokerError as error:
                code = max(code, code_of(error))
                click.echo(f"Error: {safe(error)}", err=True)
                continue
            documents.append(job.document)
            if not json_wanted:
                state = str(job.document["state"])
                click.echo(f"{job.number} {state}" + ("" if state == "cancelled" else ", will be cancelled"))
    if json_wanted:
        print_json({"items": documents})
    raise click.exceptions.Exit(code)
