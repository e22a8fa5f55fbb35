"""What a person or a program reads: tables, JSON, and texts of users made harmless."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from stoker.quoting import unprintable_character

Function = TypeVar("Function", bound=Callable[..., Any])
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_BREAKS = re.compile(r"\r\n|\r")
WIDE = 100_000  # columns where nobody looks: nothing is cut
STYLES = {"running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def as_json(function: Function) -> Function:
    """Give a command the option --json."""
    return click.option("--json", "json_wanted", is_flag=True, help="Print one JSON document.")(function)


def console(*, messages: bool = False) -> Console:
    """The terminal behind stdout (data) or stderr (messages); without colour and without end where it is none."""
    stream = sys.stderr if messages else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, highlight=False, no_color=True if os.environ.get("NO_COLOR") else None)


def say(sentence: str) -> None:
    """Write a message for a person to stderr."""
    click.echo(safe(sentence), err=True)


def print_json(document: Any) -> None:
    """Write one JSON document on one line, ASCII only, so that no terminal obeys a user's text."""
    click.echo(json.dumps(document))


def safe(text: object) -> str:
    """Return one line in which characters that a terminal would obey or hide are spelled out."""
    return "".join(_spelled(character) for character in str(text))


def safe_lines(text: str) -> str:
    """Return a text of many lines made harmless: colours are dropped, line ends and tabs stay."""
    plain = _BREAKS.sub("\n", _COLOURS.sub("", text))
    return "".join(character if character in "\n\t" else _spelled(character) for character in plain)


def _spelled(character: str) -> str:
    if not unprintable_character(character):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Write rows under columns; a column in which nothing stands is left out."""
    kept = [[("" if value is None else safe(value)) for value in row] for row in rows]
    shown = [place for place, name in enumerate(columns) if not kept or any(row[place] for row in kept) or place == 0]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place in shown:
        table.add_column(columns[place], justify="right" if columns[place] in right else "left", no_wrap=True)
    for row in kept:
        table.add_row(*(Text(row[place], style=STYLES.get(row[place], "")) for place in shown))
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as written:
        screen.print(table)
    for line in written.get().splitlines():
        click.echo(line.rstrip())  # rich fills the last column, which only a terminal needs


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Write name and value, a line each; values that are None or empty are left out."""
    for name, value in pairs:
        if value is not None and value not in ("", [], {}):
            lines = safe_lines(str(value)).splitlines() or [""]
            click.echo(f"{name + ':':<13} {lines[0]}")
            for line in lines[1:]:
                click.echo(f"{'':<13} {line}")


@contextmanager
def upload_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar for bytes on their way, given (done, in all); None where nobody looks."""
    screen = console(messages=True)
    if not screen.is_terminal:
        yield None
        return
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=screen, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def percent(share: float | None) -> str:
    """``0.612`` as ``61.2 %``."""
    return "" if share is None else f"{100 * share:.1f} %"


def amount(count: float | None) -> str:
    """Bytes as people say them: ``4.0 GB``."""
    if count is None:
        return ""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "B" else f"{count:.1f} {units[0]}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``12m``, ``3h10m``, ``2d``."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02}m" if hours < 48 else f"{hours // 24}d"


def seconds_since(at: str | None, now: datetime | None = None) -> float | None:
    """Seconds since a time of the API (ISO 8601 with its offset)."""
    if not at:
        return None
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(at)).total_seconds()
