"""`stoker train` and `stoker submit`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from stoker.client.client import Client, train_document
from stoker.client.follow import follow_to_the_end, wait_for_the_end
from stoker.client.job import Job
from stoker.client.screen import as_json, print_json, safe
from stoker.client.specfile import assign, read_spec
from stoker.jobs.spec import PRIORITIES, parse_spec

Function = TypeVar("Function", bound=Callable[..., Any])

# option -> path in the flat fields of a training
TRAIN_PATHS = {
    "dataset": "dataset",
    "model": "model",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "schedule": "schedule.name",
    "precision": "precision",
    "validation": "validation",
    "max_bad_images": "max_bad_images",
    "seed": "seed",
    "device": "resources.device",
    "gpus": "resources.gpus",
    "gpu_memory": "resources.gpu_memory",
    "gpu_type": "resources.gpu_type",
    "cpus": "resources.cpus",
    "memory": "resources.memory",
    "priority": "priority",
    "max_retries": "max_retries",
    "time_limit": "time_limit",
    "stall_timeout": "stall_timeout",
    "checkpoint_every": "checkpoint.every",
    "network": "network",
}


def submit_options(function: Function) -> Function:
    """Give a command the options of everything that submits."""
    options = [
        click.option("--name", help="Name of the job; default: data set and model."),
        click.option("--tag", "tags", multiple=True, help="May be given several times."),
        click.option("--wait", is_flag=True, help="Wait for the end; the exit code is the job's fate."),
        click.option("--follow", "-f", is_flag=True, help="Show progress until the end; the same exit codes."),
        click.option("--dry-run", is_flag=True, help="Check the spec, print it whole, submit nothing."),
        click.option("--quiet", "-q", is_flag=True, help="Print the number only."),
        click.option("--key", help="Idempotency-Key: the same key and spec give the same job."),
        as_json,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@click.option("--dataset", "-d", help="cifar10, cifar100, mnist, fashion-mnist, digits, or one that was uploaded.")
@click.option("--model", "-m", help="tutorial-cnn (default), fast, or a torchvision classification model.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--optimizer", help="sgd, adam, adamw.")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--momentum", type=float)
@click.option("--weight-decay", type=float)
@click.option("--schedule", help="constant, cosine, one-cycle.")
@click.option("--augment", multiple=True, help='flip, "translate(4)", "cutout(8)"; may be given several times.')
@click.option("--precision", help="float32, bf16, fp16, auto.")
@click.option("--validation", type=float, help="Share of the training images that chooses the best checkpoint.")
@click.option("--max-bad-images", type=int, help="Images that may fail to decode.")
@click.option("--seed", type=int)
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]))
@click.option("--gpus", type=float)
@click.option("--gpu-memory", help='Such as "4GB".')
@click.option("--gpu-type")
@click.option("--cpus", type=float)
@click.option("--memory", help='Such as "2GB".')
@click.option("--priority", type=click.Choice(list(PRIORITIES)))
@click.option("--max-retries", type=int, help="Of the job's own failures.")
@click.option("--time-limit", help='Such as "2h".')
@click.option("--stall-timeout", help='Such as "10m".')
@click.option("--checkpoint-every", help='Such as "1 epoch" or "500 steps".')
@click.option("--network", type=click.Choice(["none", "open"]))
@click.option("--after", type=int, multiple=True, help="Number of a job that must have succeeded first.")
@click.option("--set", "assignments", multiple=True, metavar="A.B=V", help="Any other field, such as optimizer.lr=0.1.")
@submit_options
def train(assignments: tuple[str, ...], augment: tuple[str, ...], after: tuple[int, ...], **options: Any) -> None:
    """Train with a built-in recipe: the network and the settings of PyTorch's classifier tutorial by default."""
    fields: dict[str, Any] = {}
    for option, path in TRAIN_PATHS.items():
        if (value := options.pop(option)) is not None:
            _put(fields, path, value)
    fields |= {name: list(values) for name, values in (("augment", augment), ("after", after)) if values}
    assign(fields, tuple(text.removeprefix("train.") for text in assignments))  # train.epochs=3 is epochs=3
    _submit(train_document(fields), Way(**options))


@click.command()
@click.argument("spec", metavar="SPEC.yaml")
@submit_options
def submit(spec: str, **options: Any) -> None:
    """Submit a job spec; `-` reads it from stdin."""
    _submit(read_spec(spec), Way(**options))


def _put(fields: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
    fields[last] = value


@dataclass(frozen=True, slots=True)
class Way:
    """How a submit goes on: the options that all commands which submit share."""

    name: str | None
    tags: tuple[str, ...]
    wait: bool
    follow: bool
    dry_run: bool
    quiet: bool
    key: str | None
    json_wanted: bool


def _submit(document: dict[str, Any], way: Way) -> None:
    if way.name is not None:
        document = document | {"name": way.name}
    if way.tags:
        document = document | {"tags": list(way.tags)}
    spec = parse_spec(document)  # before a server is looked for: a wrong field is told anywhere
    if way.dry_run:
        print_json(spec.document())
        return
    with Client() as client:
        job = client.submit(document, key=way.key)
        if not (way.json_wanted and (way.follow or way.wait)):  # then one document at the end, or one a line
            _announce(job, quiet=way.quiet, json_wanted=way.json_wanted)
        if way.follow:
            follow_to_the_end(job, json_wanted=way.json_wanted)
        elif way.wait:
            wait_for_the_end(job, json_wanted=way.json_wanted)


def _announce(job: Job, *, quiet: bool, json_wanted: bool) -> None:
    if json_wanted:
        print_json(job.document)
    elif quiet:
        click.echo(job.number)
    else:
        reason = job.document.get("reason") or job.reason()  # the answer to a submit does not wait for the planner
        place = f"#{reason['position']} in queue: " if reason.get("position") else ""
        words = f"{job.number} {job.document['state']}  {job.name}  {place}{reason.get('sentence') or ''}"
        click.echo(safe(words.rstrip()))
        click.echo(safe(job.url))
