"""What all commands that submit share: their options, and the way from a spec to its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from stoker.client.client import Client
from stoker.client.follow import follow_to_the_end, wait_for_the_end
from stoker.client.forecasts import announced
from stoker.client.job import Job
from stoker.client.screen import amount, as_json, duration, print_json, safe, say
from stoker.client.specfile import assign
from stoker.errors import InvalidInput, StokerError
from stoker.jobs.spec import PRIORITIES, parse_spec
from stoker.quoting import quoted

Function = TypeVar("Function", bound=Callable[..., Any])

# option -> path in the spec
JOB_PATHS = {
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
    "after": "after",
}


def submit_options(function: Function) -> Function:
    """Give a command the options of everything that submits."""
    options = [
        click.option("--name", help="Name of the job; default: that of what it runs."),
        click.option("--tag", "tags", multiple=True, help="May be given several times."),
        click.option("--notify", multiple=True, help="URL or mail address that is told of the end; several times."),
        click.option("--wait", is_flag=True, help="Wait for the end; the exit code is the job's fate."),
        click.option("--follow", "-f", is_flag=True, help="Show progress until the end; the same exit codes."),
        click.option("--dry-run", is_flag=True, help="Check the spec, print it whole, submit nothing."),
        click.option("--quiet", "-q", is_flag=True, help="Print the number only."),
        click.option("--key", help="Idempotency-Key: the same key and spec give the same job."),
        as_json,
    ]
    return decorated(function, options)


def job_options(function: Function) -> Function:
    """Give a command the options for what a job needs and how it is run, whatever its kind."""
    options = [
        click.option("--device", type=click.Choice(["auto", "cpu", "gpu"])),
        click.option("--gpus", type=float),
        click.option("--gpu-memory", help='Such as "4GB".'),
        click.option("--gpu-type"),
        click.option("--cpus", type=float),
        click.option("--memory", help='Such as "2GB".'),
        click.option("--priority", type=click.Choice(list(PRIORITIES))),
        click.option("--max-retries", type=int, help="Of the job's own failures."),
        click.option("--time-limit", help='Such as "2h".'),
        click.option("--stall-timeout", help='Such as "10m".'),
        click.option("--checkpoint-every", help='Such as "1 epoch" or "500 steps".'),
        click.option("--network", type=click.Choice(["none", "open"])),
        click.option("--after", type=int, multiple=True, help="Number of a job that must have succeeded first."),
    ]
    return decorated(function, options)


def decorated(function: Function, options: Sequence[Any]) -> Function:
    """Give a command these options, shown in this order."""
    for option in reversed(options):
        function = option(function)
    return function


def take(options: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """Take the options that were given out of all, and put each in its place of a spec."""
    fields: dict[str, Any] = {}
    for option, path in paths.items():
        if (value := options.pop(option)) not in (None, ()):
            _put(fields, path, list(value) if isinstance(value, tuple) else value)
    _refuse_gpu_of_cpu(fields.get("resources", {}))
    return fields


def _refuse_gpu_of_cpu(asked: dict[str, Any]) -> None:
    """Raise InvalidInput for options that contradict each other; in a spec what a GPU would be is not read on a CPU."""
    for field in ("gpus", "gpu_memory", "gpu_type") if asked.get("device") == "cpu" else ():
        if asked.get(field, 1) != 1:
            raise InvalidInput(
                f"resources.{field}",
                f"is {quoted(asked[field]).removesuffix('.0')}, but resources.device is cpu",
                f"remove resources.{field}, or set resources.device: gpu, or auto to let Stoker choose",
            )


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
    notify: tuple[str, ...]
    wait: bool
    follow: bool
    dry_run: bool
    quiet: bool
    key: str | None
    json_wanted: bool


def send(
    document: dict[str, Any], way: Way, before: Callable[[Client], None] = lambda _: None, set_: tuple[str, ...] = ()
) -> None:
    """Check a spec and submit it; ``before`` is called with the client when it is about to be sent.

    Raises what the client raises; ends the program with the job's fate where that is waited for.
    """
    if way.name is not None:
        document = document | {"name": way.name}
    if way.tags:
        document = document | {"tags": list(way.tags)}
    if way.notify:
        document = document | {"notify": list(way.notify)}
    assign(document, set_)
    spec = parse_spec(document)  # before a server is looked for: a wrong field is told anywhere
    if way.dry_run:
        print_json(spec.document())
        return
    with Client() as client:
        before(client)
        job = client.submit(document, key=way.key)
        if not (way.json_wanted and (way.follow or way.wait)):  # then one document at the end, or one a line
            _announce(job, quiet=way.quiet, json_wanted=way.json_wanted)
        if spec.code and not (way.quiet or way.json_wanted):
            _tell_before(job)
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
        told = _forecast(job)  # the answer to a submit does not wait for the planner
        click.echo(safe(f"{job.number} {job.document['state']}  {job.name}  {told}".rstrip()))
        click.echo(safe(job.url))


def _forecast(job: Job) -> str:
    """When it starts; empty if the server does not say: the submit has worked, whatever becomes of a question."""
    try:
        return announced(job.why())
    except StokerError:
        return ""


def _tell_before(job: Job) -> None:
    """Say what the same code and command used the last time; if the server does not tell, nothing."""
    try:
        measured = job.usage()
    except StokerError:
        return
    if (before := measured.get("before")) is None:
        return
    used = [f"{amount(before['memory_bytes'])} of memory"] if before["memory_bytes"] else []
    used += [f"{amount(before['gpu_memory_bytes'])} of GPU memory"] if before["gpu_memory_bytes"] else []
    used += [duration(before["ran_seconds"])] if before["ran_seconds"] else []
    if used:
        asked = amount(measured["asked"]["memory"])
        say(f"the same code used {', '.join(used)} in job {before['job']}; this one asks for {asked} of memory")
