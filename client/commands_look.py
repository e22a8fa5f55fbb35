"""`stoker show`, `results`, `predictions` and `metrics`: one job, looked at."""

import itertools
import shlex
from typing import Any

import click

from stoker.client.client import Client
from stoker.client.exits import OK, fate
from stoker.client.follow import tell_end
from stoker.client.job import Job
from stoker.client.records import Series
from stoker.client.screen import amount, as_json, percent, print_json, print_pairs, print_table, safe, say
from stoker.client.use import use_pairs
from stoker.jobs.spec import SECTIONS

ATTEMPTS = ("ATTEMPT", "STATE", "OUTCOME", "WORKER", "DEVICE", "PLACED", "ENDED", "FAILURE")
OUTPUTS = ("PATH", "SIZE", "ATTEMPT")
CHECKPOINTS = ("ID", "STEP", "EPOCH", "BYTES", "LATEST", "BEST")


@click.command()
@click.argument("job")
@as_json
def show(job: str, json_wanted: bool) -> None:
    """Show all about one job: state, reason, spec, attempts, checkpoints, events, failure."""
    with Client() as client:
        found = client.job(job)
        attempts, history = list(found.attempts()), list(found.history())
        checkpoints, outputs, usage = found.checkpoint_items(), found.output_items(), found.usage()
        position = None if json_wanted or found.document["state"] != "queued" else found.why().get("position")
    document = found.document
    if json_wanted:
        more = {"attempts": attempts, "checkpoints": checkpoints, "outputs": outputs, "usage": usage}
        print_json({**document, **more, "events": history})
        return
    print_pairs([*_pairs(found, position), *use_pairs(usage)])
    if attempts:
        click.echo("\nattempts")
        print_table(ATTEMPTS, [_attempt_row(item) for item in attempts])
    if checkpoints:
        click.echo("\ncheckpoints")
        print_table(
            CHECKPOINTS, [_checkpoint_row(item) for item in checkpoints], right=("ID", "STEP", "EPOCH", "BYTES")
        )
    if outputs:
        click.echo("\noutputs")
        print_table(
            OUTPUTS, [[one["path"], amount(one["bytes"]), one["attempt"]] for one in outputs], right=OUTPUTS[1:]
        )
    click.echo("\nevents")
    print_table(("AT", "EVENT", "ACTOR", "REASON"), [[e["at"], e["name"], e["actor"], e["reason"]] for e in history])


def _pairs(job: Job, position: int | None) -> list[tuple[str, object]]:
    document = job.document
    progress, failure, reason = (document.get(key) or {} for key in ("progress", "failure", "reason"))
    spec: dict[str, Any] = document.get("spec") or {}
    return [
        ("job", job.number),
        ("name", job.name),
        ("state", document["state"]),
        ("waits for", reason.get("sentence")),
        ("position", position),
        ("owner", f"{document.get('owner')} (team {document.get('team')})"),
        ("worker", document.get("worker")),
        ("priority", document.get("priority")),
        ("tags", ", ".join(document.get("tags") or [])),
        ("notifies", ", ".join(spec.get("notify") or [])),
        ("progress", _progress(progress)),
        ("accuracy", percent((document.get("result") or {}).get("accuracy"))),
        ("failure", failure.get("class")),
        ("evidence", failure.get("evidence")),
        ("fix", failure.get("fix")),
        *((section, _section(spec.get(section))) for section in SECTIONS),
        ("datasets", ", ".join(spec.get("datasets") or [])),
        ("secrets", ", ".join(spec.get("secrets") or [])),
        *((section, _flat(spec.get(section))) for section in ("environment", "resources", "checkpoint")),
        ("created", document.get("created_at")),
        ("started", document.get("started_at")),
        ("finished", document.get("finished_at")),
        ("address", job.url),
        ("flower", job.flower_url),
    ]


def _section(section: dict[str, Any] | None) -> str:
    """A section on one line; a command as it would be typed."""
    section = {name: value for name, value in (section or {}).items() if value is not None}
    command = section.pop("command", None)
    return " ".join(filter(None, [shlex.join(command) if command else "", _flat(section)]))


def _progress(progress: dict[str, Any]) -> str:
    if not progress:
        return ""
    epoch, epochs, step, steps = (progress.get(key) for key in ("epoch", "epochs", "step", "steps"))
    trained = f"{percent(progress.get('fraction'))}  epoch {epoch}/{epochs}  step {step}/{steps}"
    if not steps:  # of a script that does not say how far it goes
        trained = f"step {step}" if step else ""
    if not (cell := progress.get("cell")):
        return trained
    running = f"cell {cell['index']}/{cell['count']}: {safe(cell['source'])}"
    return f"{trained}  {running}" if epochs else running


def _flat(section: dict[str, Any] | None) -> str:
    """``{"a": 1, "b": {"c": 2}}`` as ``a=1 b.c=2``."""
    words = []
    for name, value in (section or {}).items():
        inner = _flat({f"{name}.{key}": item for key, item in value.items()}) if isinstance(value, dict) else None
        words.append(inner if inner is not None else f"{name}={value}")
    return " ".join(filter(None, words))


def _attempt_row(item: dict[str, Any]) -> list[object]:
    names = ("attempt", "state", "outcome", "worker", "device", "placed_at", "ended_at")
    return [*(item.get(name) for name in names), (item.get("failure") or {}).get("class")]


def _checkpoint_row(item: dict[str, Any]) -> list[object]:
    marks = ["yes" if item.get(name) else "" for name in ("latest", "best")]
    return [item["id"], item["step"], item["epoch"], item["bytes"], *marks]


@click.command()
@click.argument("job")
@as_json
def results(job: str, json_wanted: bool) -> None:
    """Show the accuracy, overall and per class. A job without a result: its fate and exit code instead."""
    with Client() as client:
        found = client.job(job)
        state = str(found.document["state"])
        if fate(state) != OK:
            tell_end(found, state)
        elif json_wanted:
            print_json(found.result().document)
        else:
            tell_end(found, state)
    raise click.exceptions.Exit(fate(state))


@click.command()
@click.argument("job")
@click.option("--wrong", is_flag=True, help="Only where another class was predicted.")
@click.option("--label", help="Only images of this class.")
@click.option("--predicted", help="Only images taken for this class.")
@click.option("-n", "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True)
@as_json
def predictions(job: str, wrong: bool, label: str | None, predicted: str | None, limit: int, json_wanted: bool) -> None:
    """List what was predicted for the test images."""
    with Client() as client:
        found = client.job(job).predictions(wrong=wrong or None, label=label, predicted=predicted)
        items = list(itertools.islice(found, limit))
    if json_wanted:
        numbers = {"count": found.count, "matching": found.matching, "accuracy": found.accuracy}
        shown = [{name: getattr(item, name) for name in item.__slots__} for item in items]
        print_json({**numbers, "classes": found.classes, "items": shown})
        return
    columns = ("IMAGE", "LABEL", "PREDICTED", "PROBABILITY", "")
    rows = [(i.index, i.label, i.predicted, percent(i.probability), "" if i.correct else "wrong") for i in items]
    print_table(columns, rows, right=("IMAGE", "PROBABILITY"))
    say(f"{len(items)} of {found.matching} that match, of {found.count}; accuracy {percent(found.accuracy)}")


@click.command()
@click.argument("job")
@click.argument("keys", nargs=-1, metavar="[KEY…]")
@as_json
def metrics(job: str, keys: tuple[str, ...], json_wanted: bool) -> None:
    """Show all metrics in short, or each point of the named ones."""
    with Client() as client:
        found = client.job(job).metrics()
    chosen = {key: found[key] for key in keys if key in found} if keys else found
    if json_wanted:
        print_json({"metrics": {k: {n: getattr(s, n) for n in s.__slots__} for k, s in chosen.items()}})
    elif keys:
        print_table(
            ("METRIC", "STEP", "VALUE"),
            [
                (key, step, _number(value))
                for key, series in chosen.items()
                for step, value in zip(series.steps, series.values, strict=True)
            ],
        )
    else:
        print_table(("METRIC", "POINTS", "LAST", "LEAST", "GREATEST"), [_short(k, s) for k, s in found.items()])
    for key in set(keys) - set(found):
        say(f"no metric {key}; there are: {', '.join(found) or 'none yet'}")


def _short(key: str, series: Series) -> tuple[object, ...]:
    finite = [value for value in series.values if value is not None]
    last = series.values[-1] if series.values else None
    least, greatest = (min(finite), max(finite)) if finite else (None, None)
    return key, len(series.steps), *(_number(value) for value in (last, least, greatest))


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"
