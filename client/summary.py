"""A result in the words of PyTorch's classifier tutorial, or in those of a script."""

from typing import Any

import click

from stoker.client.records import Result
from stoker.client.screen import safe


def print_result(result: Result) -> None:
    """Write the accuracy, overall and per class; of a script what it said of itself."""
    if not result.self_reported:
        share = 100 * (result.accuracy or 0)
        click.echo(f"Accuracy of the network on the {result.test_images} test images: {share:.0f} %")
        _print_classes(result.per_class)
        return
    for name, value in result.document.items():
        if name not in {"self_reported", "per_class", "classes", "confusion", "checkpoint"}:
            click.echo(safe(f"{name}: {_shown(value)}"))
    _print_classes(result.per_class)
    click.echo("(as the job's own code says)")


def _print_classes(shares: dict[str, Any]) -> None:
    for name, share in shares.items():
        known = isinstance(share, int | float)
        click.echo(f"Accuracy for class: {safe(name):5s} is " + (f"{100 * share:.1f} %" if known else "unknown"))


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:500]
