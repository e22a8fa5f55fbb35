"""The kinds of a job, for the runner: an object that makes the order of one attempt, and judges its end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stoker.jobs.attempts import Ending
from stoker.settings import Settings
from stoker.workers.decoding import Decoding
from stoker.workers.environments import Environments
from stoker.workers.interpreters import Interpreter
from stoker.workers.orders import Order
from stoker.workers.own_code import OwnCode
from stoker.workers.preparation import Preparation
from stoker.workers.recipes import Recipe
from stoker.workers.reporting import Report
from stoker.workers.runs import Run
from stoker.workers.storing import Storing
from stoker.workers.supervision import Sight


class Kind(Protocol):
    """One attempt at a job of some kind."""

    @property
    def interpreter(self) -> Interpreter:
        """The Python that it runs with, once there is an order."""

    def order(self) -> Order:
        """All that its trainer is told; brings to this machine what the trainer needs."""

    def ending(self, sight: Sight, storing: Storing) -> Ending:
        """What was seen of the trainer, once that is gone, as an ending."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """All of them, with what they need of the worker."""

    settings: Settings
    preparation: Preparation
    environments: Environments

    @contextmanager
    def of(self, run: Run, scratch: Path, report: Report, watch: Callable[[Order], Sight]) -> Iterator[Kind]:
        """The kind of a run's job; what it needs of the cache stays there until the block ends.

        ``watch`` runs an order to its end. Raises NotDecoded and what preparing raises.
        """
        if run.claimed.spec.kind == "train":
            with Decoding(self.preparation, run, scratch, watch).prepared() as source:
                yield Recipe(self.preparation, run, scratch, source)
        else:
            with ExitStack() as held:
                yield OwnCode(self.preparation, self.environments, self.settings, run, scratch, report, held)
