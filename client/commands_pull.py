"""`stoker pull`: what a job left, into files here."""

import click

from stoker.client.checkpoints import Checkpoint
from stoker.client.client import Client
from stoker.client.job import Job
from stoker.client.screen import as_json, print_json, safe, say
from stoker.errors import NotFound


@click.command()
@click.argument("job")
@click.option("--checkpoint", metavar="best|latest|STEP", help="The weights of a checkpoint, as safetensors.")
@click.option("--output", is_flag=True, help="The files that it left in $STOKER_OUTPUT (default).")
@click.option("-o", "--to", "path", metavar="PATH", help="The folder, or for a checkpoint the file, to write.")
@as_json
def pull(job: str, checkpoint: str | None, output: bool, path: str | None, json_wanted: bool) -> None:
    """Fetch the output files of a job, or the weights of one of its checkpoints. Prints the paths written."""
    if checkpoint is not None and output:
        raise click.UsageError("give --checkpoint or --output, not both")
    with Client() as client:
        found = client.job(job)
        if checkpoint is not None:
            chosen = _choose(found, checkpoint)
            written = [chosen.download(path or f"job-{found.number}-step-{chosen.step}.safetensors")]
        else:
            written = found.pull(path or f"job-{found.number}")
    if json_wanted:
        print_json({"files": [str(one) for one in written]})
        return
    for one in written:
        click.echo(safe(one))
    if not written:
        say(f"job {found.number} has left no files" + ("" if found.ended else " yet"))


def _choose(job: Job, which: str) -> Checkpoint:
    if which in {"best", "latest"}:
        return job.checkpoints.best if which == "best" else job.checkpoints.latest
    for one in job.checkpoints:
        if str(one.step) == which:
            return one
    steps = ", ".join(str(one.step) for one in job.checkpoints) or "none"
    raise NotFound("checkpoint", f"of step {which}", f"kept are: {steps}")
