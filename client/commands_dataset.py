"""`stoker dataset add` and `stoker dataset ls`."""

import click

from stoker.client.client import Client
from stoker.client.screen import amount, as_json, print_json, print_table, safe, upload_bar


@click.group()
def dataset() -> None:
    """Add and list data sets: images in folders by class."""


@dataset.command()
@click.argument("name")
@click.argument("path")
@as_json
def add(name: str, path: str, json_wanted: bool) -> None:
    """Upload a zip, a tar or a folder of train/CLASS/*.jpg and test/CLASS/*.jpg under a name.

    Content that the server has under that name already is not sent again.
    """
    with Client() as client, upload_bar() as report:
        made = client.upload_dataset(name, path, progress=report)
    if json_wanted:
        print_json(made)
    else:
        click.echo(safe(f"{made['name']}  {made['digest']}  {amount(made['bytes'])}  {_images(made)}"))


@dataset.command("ls")
@as_json
def ls(json_wanted: bool) -> None:
    """List the data sets that were uploaded."""
    with Client() as client:
        items = client.datasets()
    if json_wanted:
        print_json({"items": items})
        return
    columns = ("NAME", "SIZE", "CLASSES", "TRAIN", "TEST", "OWNER", "ADDED", "DIGEST")
    rows = [
        (
            item["name"],
            amount(item["bytes"]),
            len(item["classes"] or []),
            item["train_images"],
            item["test_images"],
            item["owner"],
            item["created_at"],
            item["digest"],
        )
        for item in items
    ]
    print_table(columns, rows, right=("SIZE", "CLASSES", "TRAIN", "TEST"))


def _images(made: dict[str, object]) -> str:
    classes = made.get("classes")
    count = len(classes) if isinstance(classes, list) else 0
    return f"{count} classes, {made.get('train_images')} training and {made.get('test_images')} test images"
