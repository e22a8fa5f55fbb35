"""The batches of one epoch, from any place in it, in the order in which they would have come."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from stoker.training.keeper import Keeper

T = TypeVar("T")


def batches(loader: Iterable[T], keeper: Keeper, done: int, *, resumed: bool) -> Iterator[T]:
    """Return the batches of an epoch after the first ``done`` of them.

    All random generators stand afterwards where they stood when the checkpoint was written. Batches that were done are
    drawn again; they are loaded again too where worker processes load them, whose random generators move with it.

    Args:
        loader: A DataLoader, or anything that can be iterated over once an epoch.
        keeper: Told where the epoch begins; ``loaded`` where ``resumed``.
        done: 0 at the beginning of an epoch.
        resumed: Whether this is the first epoch after a checkpoint.
    """
    generators = _generators(loader)
    if not resumed:
        keeper.begin_epoch(generators)
        return iter(loader)
    if not done:
        keeper.restore_orders(generators)
        keeper.begin_epoch(generators)
        return iter(loader)
    keeper.begin_epoch_again(generators)
    found = iter(loader)
    if not keeper.holds(loader):  # one with a state of its own begins where it was
        for _ in range(done):
            _pass_over(loader, found)
    keeper.restore_random()
    return found


def length(loader: Iterable[Any]) -> int:
    """Batches of an epoch; 0 when the loader does not know."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return 0


def _generators(loader: Iterable[Any]) -> list[torch.Generator]:
    samplers = [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(one, "generator", None) for one in (loader, *samplers)]
    unique = {id(one): one for one in found if isinstance(one, torch.Generator)}
    return list(unique.values())


def _pass_over(loader: Iterable[T], found: Iterator[T]) -> None:
    drawn_only = getattr(found, "_next_index", None)  # of a DataLoader that loads in this process
    known = type(loader) is DataLoader and loader.num_workers == 0 and not isinstance(loader.dataset, IterableDataset)
    if known and drawn_only is not None:
        drawn_only()
    else:
        next(found, None)
