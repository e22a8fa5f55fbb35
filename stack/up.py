"""``stoker up``: the embedded stack in the foreground, until Ctrl-C or SIGTERM."""

import os
import signal
import time
from types import FrameType

import click
from rich.console import Console

from stoker.errors import InvalidInput, OtherSchema, ServiceRefused, StokerError
from stoker.settings import load
from stoker.stack.stack import Stack

LOOK_SECONDS = 0.2  # how often the services are looked after


class Interrupts:
    """SIGINT and SIGTERM: while starting the first one raises, later they are counted."""

    def __init__(self) -> None:
        """Take both signals over, for the rest of the process."""
        self.count, self.starting = 0, True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.count += 1
        if self.starting and self.count == 1:
            raise KeyboardInterrupt

    def hurry(self) -> bool:
        """Whether a second one came: what still runs should be killed."""
        return self.count > 1


@click.command("up")
def command() -> None:
    """Start PostgreSQL, Redis, the API, a worker and Flower here, and keep them running until Ctrl-C."""
    messages, interrupts = Console(stderr=True, highlight=False), Interrupts()
    try:
        stack = Stack.start(load(os.environ), lambda line: messages.print(line, markup=False, soft_wrap=True))
    except StokerError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2 if isinstance(error, InvalidInput | OtherSchema | ServiceRefused) else 1) from None
    except KeyboardInterrupt:
        click.echo("interrupted while starting; all services are stopped", err=True)
        raise SystemExit(130) from None
    interrupts.starting = False
    try:
        click.echo(f"API       {stack.url}  (token in {stack.settings.home / 'token'})")
        click.echo(f"Flower    {stack.flower_url}  ({_flower_hint(stack)})")
        messages.print("Ctrl-C stops everything; a second one does not wait.", markup=False, soft_wrap=True)
        while not interrupts.count:
            stack.tend()
            time.sleep(LOOK_SECONDS)
    finally:
        stack.stop(interrupts.hurry)


def _flower_hint(stack: Stack) -> str:
    if os.environ.get("STOKER_FLOWER_BASIC_AUTH") or os.environ.get("STOKER_FLOWER_BASIC_AUTH_FILE"):
        return "credentials as set"
    return f"user stoker, password in {stack.settings.home / 'flower-password'}"


if __name__ == "__main__":
    command()
