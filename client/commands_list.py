"""`stoker ps` and `stoker workers`."""

import itertools
import time
from typing import Any

import click

from stoker.client.client import Client
from stoker.client.forecasts import seconds_until
from stoker.client.screen import (
    amount,
    as_json,
    console,
    duration,
    percent,
    print_json,
    print_table,
    safe,
    seconds_since,
)

COLUMNS = ("JOB", "STATE", "NAME", "OWNER", "ON", "PROGRESS", "LOSS", "ACC", "AGE", "ETA")
ALIVE = ("running", "placed", "queued", "waiting")
WATCH_SECONDS = 2.0


@click.command()
@click.option("-a", "--all", "ended_too", is_flag=True, help="Also jobs that have ended.")
@click.option("-s", "--state", help="waiting, queued, placed, running, succeeded, failed, cancelled.")
@click.option("-u", "--user", "owner")
@click.option("-t", "--tag")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Numbers only.")
@click.option("--watch", is_flag=True, help="Show again every two seconds, until Ctrl-C.")
@as_json
def ps(
    ended_too: bool, state: str | None, limit: int, quiet: bool, watch: bool, json_wanted: bool, **filters: Any
) -> None:
    """List jobs that wait or run, the latest first."""
    with Client() as client:
        while True:
            wanted = (state,) if state else () if ended_too else ALIVE
            found = itertools.islice(client.jobs(state=wanted, limit=min(limit, 500), **filters), limit)
            documents = [job.document for job in found]
            if watch and console().is_terminal:
                click.clear()
            _print(documents, quiet=quiet, json_wanted=json_wanted)
            if not watch:
                return
            time.sleep(WATCH_SECONDS)


def _print(documents: list[dict[str, Any]], *, quiet: bool, json_wanted: bool) -> None:
    if json_wanted:
        print_json({"items": documents})
    elif quiet:
        for document in documents:
            click.echo(document["number"])
    elif documents or console().is_terminal:
        print_table(COLUMNS, [_row(document) for document in documents], right=("JOB", "LOSS", "ACC", "AGE", "ETA"))


def _row(document: dict[str, Any]) -> tuple[object, ...]:
    fraction, loss = (document.get("progress") or {}).get("fraction"), document.get("loss")
    left = seconds_until(document.get("ends_at"))  # as the server expects; older ones tell none
    return (
        document["number"],
        document["state"],
        document["name"],
        document.get("owner"),
        document.get("worker"),
        bar(fraction) if document["state"] == "running" else None,
        None if loss is None else f"{loss:.4g}",
        percent((document.get("result") or {}).get("accuracy")),
        duration(seconds_since(document.get("created_at"))),
        duration(left),
    )


def bar(fraction: float | None) -> str:
    """``▓▓▓▓▓░░░  62 %``."""
    if fraction is None:
        return ""
    done = round(8 * fraction)
    return "▓" * done + "░" * (8 - done) + f" {100 * fraction:3.0f} %"


@click.command()
@as_json
def workers(json_wanted: bool) -> None:
    """List workers, what they offer and what is used."""
    with Client() as client:
        items = client.workers()
    if json_wanted:
        print_json({"items": items})
        return
    columns = ("WORKER", "STATE", "HOST", "CPUS", "MEMORY", "ATTEMPTS", "DEVICES", "JOBS", "SEEN")
    print_table(columns, [_worker_row(item) for item in items])
    for item in items:
        for told in remarks(item):
            click.echo(safe(f"{item['name']}: {told}"))


def remarks(worker: dict[str, Any]) -> list[str]:
    """What there is to say of a worker beside the figures, a sentence each."""
    told = []
    if worker["state"] == "other_version":
        told.append(
            f"runs Stoker {worker['version']}, protocol {worker['protocol']}, not that of the server: it gets no jobs"
        )
    if notice := worker.get("notice"):  # not told by older servers
        told.append(notice)
    out = [device for device in worker["devices"] if device["quarantined"]]
    return told + [f"{device['uuid']} is out of use: {device['quarantined']}" for device in out]


def _worker_row(item: dict[str, Any]) -> tuple[object, ...]:
    devices = [_device(device) for device in item["devices"]]
    return (
        item["name"],
        item["state"],
        item["host"],
        f"{item['cpus_used']:g}/{item['cpus']:g}",
        f"{amount(item['memory_used_bytes'])}/{amount(item['memory_bytes'])}",
        f"{item['attempts']}/{item['attempts_limit']}",
        ", ".join(devices),
        " ".join(str(number) for number in item["jobs"]),
        duration(seconds_since(item["last_seen_at"])) if item["state"] in {"lost", "stopped"} else "now",
    )


def _device(device: dict[str, Any]) -> str:
    mark = " quarantined" if device["quarantined"] else ""
    return f"{device['model']} {device['used_milli'] / 1000:g}/{device['capacity_milli'] / 1000:g}{mark}"
