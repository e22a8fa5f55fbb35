"""``stoker``: the table of commands, and how each error becomes an exit code.

A command's module is loaded when the command is used: `stoker --help` loads neither HTTP nor pydantic nor rich.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from stoker import __version__
from stoker.client.exits import ERROR, INTERRUPTED, OK, code_of
from stoker.errors import StokerError

# command -> (module, attribute, one line for --help)
COMMANDS = {
    "up": ("stoker.stack.up", "command", "Start everything on this machine, until Ctrl-C."),
    "api": ("stoker.client.commands_services", "api", "Run the API; settings from STOKER_*."),
    "worker": ("stoker.client.commands_services", "worker", "Run a worker, drain one, resume one."),
    "migrate": ("stoker.client.commands_services", "migrate", "Bring the database's tables up to date."),
    "doctor": ("stoker.client.commands_doctor", "doctor", "Check everything that is needed; say how to fix it."),
    "login": ("stoker.client.commands_access", "login", "Keep the address and token of a server."),
    "whoami": ("stoker.client.commands_access", "whoami", "Show the user behind the token."),
    "config": ("stoker.client.commands_access", "config", "Show each setting and where it came from."),
    "train": ("stoker.client.commands_submit", "train", "Train with a built-in recipe."),
    "run": ("stoker.client.commands_run", "run", "Run a program of your own, with the folder it lies in."),
    "notebook": ("stoker.client.commands_run", "notebook", "Run a notebook cell by cell."),
    "submit": ("stoker.client.commands_submit", "submit", "Submit a job spec (YAML or JSON)."),
    "ps": ("stoker.client.commands_list", "ps", "List jobs."),
    "show": ("stoker.client.commands_look", "show", "Show all about one job."),
    "watch": ("stoker.client.commands_follow", "watch", "Follow a job with a progress bar; ends with its fate."),
    "logs": ("stoker.client.commands_follow", "logs", "Print what a job printed."),
    "wait": ("stoker.client.commands_follow", "wait", "Wait until jobs have ended; ends with their fate."),
    "results": ("stoker.client.commands_look", "results", "Show the accuracy, overall and per class."),
    "predictions": ("stoker.client.commands_look", "predictions", "List what was predicted for the test images."),
    "metrics": ("stoker.client.commands_look", "metrics", "Show loss and other metrics."),
    "pull": ("stoker.client.commands_pull", "pull", "Fetch a job's output files, or a checkpoint's weights."),
    "queue": ("stoker.client.commands_queue", "queue", "Show what waits, in its order, and how shares stand."),
    "why": ("stoker.client.commands_queue", "why", "Say what a job waits for, and when it will start."),
    "plan": ("stoker.client.commands_queue", "plan", "Say what would become of a job before it is submitted."),
    "cancel": ("stoker.client.commands_steer", "cancel", "Stop jobs, or take them out of the queue."),
    "retry": ("stoker.client.commands_steer", "retry", "Queue a failed or cancelled job again."),
    "clone": ("stoker.client.commands_run", "clone", "Submit a job again, with changes or as it was."),
    "hold": ("stoker.client.commands_steer", "hold", "Keep a waiting job from starting."),
    "release": ("stoker.client.commands_steer", "release", "Let a held job take its turn again."),
    "preempt": ("stoker.client.commands_steer", "preempt", "Ask a running job to make room for a while."),
    "priority": ("stoker.client.commands_steer", "priority", "Give a job another priority."),
    "first": ("stoker.client.commands_steer", "first", "Let a waiting job go before your other ones."),
    "workers": ("stoker.client.commands_list", "workers", "List workers, what they offer and what is used."),
    "simulate": ("stoker.client.simulate", "command", "Say how full a fleet would get, from CSV files."),
    "team": ("stoker.client.commands_admin", "team", "Add, list, change and remove teams."),
    "user": ("stoker.client.commands_admin", "user", "Add, list and change users."),
    "token": ("stoker.client.commands_admin", "token", "Make, list and revoke tokens."),
    "quota": ("stoker.client.commands_quota", "quota", "Set what teams are guaranteed in a pool."),
    "pool": ("stoker.client.commands_pool", "pool", "List pools; say where a GPU may be shared."),
    "usage": ("stoker.client.commands_quota", "usage", "Show what teams or users have used."),
    "secret": ("stoker.client.commands_secret", "secret", "Keep, list and remove secrets for jobs."),
    "dataset": ("stoker.client.commands_dataset", "dataset", "Add and list data sets."),
}


class Commands(click.Group):
    """A group whose commands are loaded on use, and whose errors become one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load one command; a missing extra is a usage error that names it."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "stoker":
                raise
            raise click.ClickException(f'`stoker {cmd_name}` needs {error.name}: pip install "stoker[stack]"') from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table from its texts, without loading a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        """Run, and leave the process with the exit code of the contract."""
        run = super().main
        self.leave(lambda: run(*args, **{**options, "standalone_mode": False}))

    @staticmethod
    def leave(run: Callable[[], object]) -> None:
        """Turn what ``run`` raises into a sentence on stderr and an exit code."""
        try:
            outcome = run()
            sys.stdout.flush()
            code = outcome if isinstance(outcome, int) else OK
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
            code = ERROR
        except (StokerError, TimeoutError, OSError) as error:
            _say(error)
            code = code_of(error)
        sys.exit(code)


def _say(error: Exception) -> None:
    safe = importlib.import_module("stoker.client.screen").safe  # after an error, time to load rich does not matter
    for problem in getattr(error, "problems", None) or [error]:
        click.echo(f"Error: {safe(problem)}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", message="stoker %(version)s")
def cli() -> None:
    """Train PyTorch models on shared machines.

    A job is named by its number, or by its name (the latest of that name). Data goes to stdout, messages to
    stderr; every command that reads takes --json.

    Exit codes: 0 done, 1 error, 2 usage, 3 not logged in or forbidden, 4 not found, 5 server unreachable,
    130 interrupted; a command that follows a job: 0 succeeded, 100 failed, 101 not finished, 103 cancelled.
    """


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")  # a terminal without UTF-8 shows ? rather than a traceback
    cli(prog_name="stoker")


if __name__ == "__main__":
    main()
