"""The way of a script's training through epochs and steps: where it stands, when a checkpoint is due, when to leave."""

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from stoker.errors import InvalidInput
from stoker.training.config import RunTask
from stoker.training.diagnosis import explain
from stoker.training.speaker import Speaker

if TYPE_CHECKING:
    from stoker.training.checkpoint import Written
    from stoker.training.keeper import Keeper

T = TypeVar("T")


@dataclass(slots=True)
class Place:
    """How far a run has come."""

    epoch: int = 0  # completed
    epoch_step: int = 0  # completed, of the current epoch
    step: int = 0  # completed in all; without ``steps``: how often something was logged
    counted: bool = False  # whether ``steps`` counts them


class Course:
    """The loops of one run in the main process of a job. Used by one thread, but for ``now``."""

    def __init__(self, task: RunTask, speaker: Speaker) -> None:
        """Begin at the start; ``load`` goes on from the checkpoint of the task."""
        self.place = Place()
        self.resumed = False  # whether a checkpoint was loaded
        self.shown: tuple[int, int] | None = None  # done, total: what a script says of itself
        self.left = False
        self._task, self._speaker = task, speaker
        self._keeper: Keeper | None = None
        self._clock = threading.Lock()
        self._epochs = self._length = 0  # of the loops, as far as known
        self._in_epochs = self._in_step = False
        self._passed = False  # whether the loop over this epoch's batches is over
        self._begun_at = 0  # the step at which the epoch began
        self._resuming = False  # until the first loop over batches after a checkpoint
        self._due = self._first_step_told = self._terminated = False

    def keep(self, things: dict[str, Any]) -> SimpleNamespace:
        """Keep objects, and load the checkpoint into them; returns the values.

        Raises TrainingFailed (``checkpoint_mismatch``).
        """
        if self._keeper is None:
            from stoker.training.keeper import Keeper, written_message  # noqa: PLC0415 - it loads torch

            def announce(written: "Written") -> None:
                self._speaker.announce("checkpoint", **written_message(written))

            self._keeper = Keeper(Path(self._task.scratch), announce)
            if self._task.checkpoint is not None:
                self.place = Place(**self._keeper.load(self._task.checkpoint))
                self.resumed = self._resuming = True
        self._keeper.add(things)
        return self._keeper.values

    def now(self, step: int | None) -> int:
        """The step of something that is logged now; from any thread."""
        with self._clock:
            place = self.place
            if step is None:
                place.step += not place.counted
                return place.step + (place.counted and self._in_step)
            if not place.counted:
                place.step = max(place.step, step)
            return step

    def epochs(self, count: int) -> Iterator[int]:
        """Count epochs from where it stands."""
        self._begin()
        self._epochs, self._in_epochs = count, True
        try:
            while self.place.epoch < count:
                self._begun_at = self.place.step
                self.report()
                yield self.place.epoch
                self._finish_epoch()
        finally:
            self._in_epochs = False
            self._let_go()

    def steps(self, loader: Iterable[T]) -> Iterator[T]:
        """Give the batches of the epoch from where it stands."""
        if self._passed:
            fix = "iterate over validation data without it"
            raise InvalidInput("run.steps", "a second loop in the same epoch", fix)
        if not self._in_epochs:
            self._begin()
        try:
            for batch in self._batches(loader):
                self._in_step = True
                yield batch
                self._finish_step()
        finally:
            if self._in_step:  # the body has left the loop
                self._count_step()
            self._passed = self._in_epochs
        if not self._in_epochs:
            self._finish_epoch()
            self._let_go()

    def checkpoint(self) -> None:
        """Write a checkpoint at the end of the step or epoch, or now."""
        self._due = True
        if not (self._in_step or self._in_epochs):
            self._save()

    @property
    def stop_asked(self) -> bool:
        """Whether it was asked to stop."""
        return self._speaker.stop_asked or self._terminated

    def listen(self) -> None:
        """From now on SIGTERM asks for an end like the supervisor does; a handler of the script's own stays."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_term)

    def leave(self) -> NoReturn:
        """Write a checkpoint, unless it would be of an unfinished epoch, and end the process."""
        if self._in_step:
            self._count_step()
            self._save()
        elif not self._in_epochs:
            self._save()
        self._end()

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises TrainingFailed when it could not be."""
        try:
            if self._keeper is not None:
                self._keeper.wait()
        except OSError as error:
            raise explain(error) from error

    def report(self) -> None:
        """Say how far it has come."""
        place = self.place
        steps = self._epochs * self._length if place.counted else 0
        done, total = self.shown or (place.step, max(steps, place.step) if steps else 0)
        epochs = {"epoch": place.epoch, "epochs": self._epochs}
        self._speaker.progress({**epochs, "step": done, "steps": total, "images_per_second": None})

    def tell_first_step(self) -> None:
        """Say, once, that the training has begun."""
        if not self._first_step_told:
            self._first_step_told = True
            self._speaker.send("first_step", seconds=time.time())

    def _begin(self) -> None:
        """Enter a loop, with all random generators where the checkpoint left them."""
        self.listen()
        if self._keeper is not None and self._keeper.loaded is not None:
            self._keeper.check_complete()
            self._keeper.restore_random()
        self._leave_if_asked()

    def _batches(self, loader: Iterable[T]) -> Iterator[T]:
        from stoker.training import order  # noqa: PLC0415 - it loads torch

        self._length = order.length(loader)
        self.place.counted = True
        if self._keeper is None:
            return iter(loader)
        resuming, self._resuming = self._resuming and self._keeper.loaded is not None, False
        return order.batches(loader, self._keeper, self.place.epoch_step, resumed=resuming)

    def _count_step(self) -> None:
        self._in_step = False
        self.place.step += 1
        self.place.epoch_step += 1
        self.tell_first_step()
        every = self._task.every
        if every.unit == "step" and self.place.step % every.count == 0:
            self._due = True

    def _finish_step(self) -> None:
        self._count_step()
        self.report()
        if self.place.epoch_step == self._length:
            return  # what is due now waits for the end of the epoch
        if (self._due or self._speaker.checkpoint_asked) and not (self._keeper and self._keeper.busy):
            self._save()
        self._leave_if_asked()

    def _finish_epoch(self) -> None:
        place, every = self.place, self._task.every
        place.epoch, place.epoch_step, self._passed = place.epoch + 1, 0, False
        if not place.counted and place.step == self._begun_at:
            place.step += 1  # nothing was logged: the epochs are what is counted
        self.tell_first_step()
        by_epoch = every.unit == "epoch" or not place.counted
        count = every.count if every.unit == "epoch" else 1
        due = self._due or self._speaker.checkpoint_asked or (by_epoch and place.epoch % count == 0)
        if due or place.epoch == self._epochs:
            self._save()
        self.report()
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if not self.stop_asked:
            return
        if self._keeper is not None and self._keeper.saved_step != self.place.step:
            self._save()
        self._end()

    def _save(self) -> None:
        if self._keeper is None:
            return
        self._speaker.flush()  # points up to this step are sent before the checkpoint that covers them
        message = {"epoch": self.place.epoch, "metrics": self._speaker.latest()}
        try:
            self._keeper.save(self.place.step, asdict(self.place), message)
        except OSError as error:
            raise explain(error) from error
        self._due = self._speaker.checkpoint_asked = False

    def _end(self) -> NoReturn:
        self.wait()
        self.left = True
        self._speaker.send("stopped", step=self.place.step)
        self._speaker.close()
        raise SystemExit(0)

    def _on_term(self, _signal: int, _frame: FrameType | None) -> None:
        self._terminated = True

    def _let_go(self) -> None:
        """After the loops a SIGTERM ends the process again, at once: there is nothing left to save."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == self._on_term:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
