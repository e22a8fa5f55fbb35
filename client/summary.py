"""A result in the words of PyTorch's classifier tutorial."""

import click

from stoker.client.records import Result
from stoker.client.screen import safe


def print_result(result: Result) -> None:
    """Write the accuracy, overall and per class."""
    click.echo(f"Accuracy of the network on the {result.test_images} test images: {100 * result.accuracy:.0f} %")
    for name, share in result.per_class.items():
        click.echo(
            f"Accuracy for class: {safe(name):5s} is " + ("unknown" if share is None else f"{100 * share:.1f} %")
        )
