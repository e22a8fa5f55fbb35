"""`stoker run`, `notebook` and `clone`: a team's own code as a job."""

import os
from pathlib import Path
from typing import Any

import click

from stoker.client.client import Client
from stoker.client.own_code import own_document
from stoker.client.packing import Packed, pack
from stoker.client.programs import check_command, check_notebook
from stoker.client.screen import amount, say, upload_bar
from stoker.client.specfile import assign
from stoker.client.submitting import JOB_PATHS, Function, Way, decorated, job_options, send, submit_options, take
from stoker.errors import InvalidInput
from stoker.quoting import quoted
from stoker.settings import load

OWN_PATHS = {"datasets": "datasets", "secrets": "secrets", "requirements": "requirements"}


def own_options(function: Function) -> Function:
    """Give a command the options for what own code is run with."""
    options = [
        click.option("--code", "folder", default=".", metavar="DIR", help="The code; default: this folder."),
        click.option("--requirements", metavar="FILE", help="Packages to install, a file of the code, as for pip."),
        click.option("--env", "variables", multiple=True, metavar="A=B", help="A variable of the job."),
        click.option("--dataset", "datasets", multiple=True, help="Read-only at $STOKER_DATA/NAME."),
        click.option("--secret", "secrets", multiple=True, help="A secret of the team, as a variable of this job."),
    ]
    return decorated(function, options)


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@own_options
@job_options
@submit_options
@click.argument("command", nargs=-1, metavar="-- PROGRAM [ARGUMENT…]")
def run(command: tuple[str, ...], folder: str, **options: Any) -> None:
    """Run a program of your own: stoker run --gpus 1 -- python train.py --lr 0.1.

    The folder is carried along: what git tracks and what is new and not ignored, without git everything; less what
    .stokerignore lists. It is stored once. The program starts in its root; what it writes to $STOKER_OUTPUT is kept.
    """
    packed = pack(Path(folder), load(os.environ).code_limit_bytes)
    check_command(packed, list(command))
    _send(packed, own_document("script", {"command": list(command)}, packed, _fields(options)), Way(**options))


@click.command()
@own_options
@job_options
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="A parameter of the notebook.")
@submit_options
@click.argument("file", metavar="FILE.ipynb")
def notebook(file: str, folder: str, assignments: tuple[str, ...], **options: Any) -> None:
    """Run a notebook cell by cell: stoker notebook tutorial.ipynb --set lr=0.01.

    Parameters replace those of the cell that is tagged `parameters`. The folder is carried along as by `stoker run`.
    """
    packed = pack(Path(folder), load(os.environ).code_limit_bytes)
    path = _inside(packed.folder, file)
    check_notebook(packed, path)
    parameters: dict[str, Any] = {}
    assign(parameters, assignments)
    section = {"path": path, "parameters": parameters}
    _send(packed, own_document("notebook", section, packed, _fields(options)), Way(**options))


def _inside(folder: Path, file: str) -> str:
    """The path of a file inside the code, as it was named from here or from there."""
    for place in (Path(file), folder / file):
        found = Path(os.path.normpath(place.absolute()))
        if found.is_file() and found.is_relative_to(root := Path(os.path.normpath(folder.absolute()))):
            return found.relative_to(root).as_posix()
    where = "outside the code" if Path(file).is_file() else "not there"
    raise InvalidInput("notebook.path", f"{file} is {where}", "name a notebook in the folder; --code DIR names another")


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """The options as flat fields of a spec."""
    fields = take(options, JOB_PATHS | OWN_PATHS)
    if variables := options.pop("variables"):
        fields["variables"] = dict(_variable(text) for text in variables)
    return fields


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("--env", f"{quoted(text, 80)} is no assignment", "write --env NAME=VALUE")
    return name, value


def _send(packed: Packed, document: dict[str, Any], way: Way) -> None:
    def upload(client: Client) -> None:
        with upload_bar() as report:
            stored = client.send_code(packed, progress=report)
        if not (way.quiet or way.json_wanted):
            say(f"code {packed.code[7:19]}: {stored['files']:,} files, {amount(stored['bytes'])}")

    send(document, way, before=upload)


@click.command()
@click.argument("job")
@click.option("--set", "assignments", multiple=True, metavar="A.B=V", help="A field that differs, as script.command=….")
@submit_options
def clone(job: str, assignments: tuple[str, ...], **options: Any) -> None:
    """Submit a job again: the same spec, the same code; data sets and secrets by the same names."""
    with Client() as client:
        document = client.job(job).document["spec"]
    send(document, Way(**options), set_=assignments)
