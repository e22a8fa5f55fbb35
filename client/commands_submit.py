"""`stoker train` and `stoker submit`."""

from typing import Any

import click

from stoker.client.client import train_document
from stoker.client.specfile import assign, read_spec
from stoker.client.submitting import JOB_PATHS, Way, job_options, send, submit_options, take

# option -> path in the flat fields of a training
TRAIN_PATHS = {
    "dataset": "dataset",
    "model": "model",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "schedule": "schedule.name",
    "augment": "augment",
    "precision": "precision",
    "validation": "validation",
    "max_bad_images": "max_bad_images",
    "seed": "seed",
}


@click.command()
@click.option("--dataset", "-d", help="cifar10, cifar100, mnist, fashion-mnist, digits, or one that was uploaded.")
@click.option("--model", "-m", help="tutorial-cnn (default), fast, or a torchvision classification model.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--optimizer", help="sgd, adam, adamw.")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--momentum", type=float)
@click.option("--weight-decay", type=float)
@click.option("--schedule", help="constant, cosine, one-cycle.")
@click.option("--augment", multiple=True, help='flip, "translate(4)", "cutout(8)"; may be given several times.')
@click.option("--precision", help="float32, bf16, fp16, auto.")
@click.option("--validation", type=float, help="Share of the training images that chooses the best checkpoint.")
@click.option("--max-bad-images", type=int, help="Images that may fail to decode.")
@click.option("--seed", type=int)
@job_options
@click.option("--set", "assignments", multiple=True, metavar="A.B=V", help="Any other field, such as optimizer.lr=0.1.")
@submit_options
def train(assignments: tuple[str, ...], **options: Any) -> None:
    """Train with a built-in recipe: the network and the settings of PyTorch's classifier tutorial by default."""
    fields = take(options, TRAIN_PATHS | JOB_PATHS)
    assign(fields, tuple(text.removeprefix("train.") for text in assignments))  # train.epochs=3 is epochs=3
    send(train_document(fields), Way(**options))


@click.command()
@click.argument("spec", metavar="SPEC.yaml")
@submit_options
def submit(spec: str, **options: Any) -> None:
    """Submit a job spec; `-` reads it from stdin."""
    send(read_spec(spec), Way(**options))
