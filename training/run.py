"""What a job's own script or notebook talks to: what ``stoker.current_run()`` returns. Loads torch on first need.

Without Stoker, in a forked child and in a process that the script has started, every call does the harmless thing:
loops run from their beginning, nothing is said, nothing is kept.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from stoker.quoting import quoted
from stoker.training.config import RunTask
from stoker.training.course import Course
from stoker.training.diagnosis import last_lines
from stoker.training.failure import TrainingFailed, nan_loss
from stoker.training.speaker import Speaker

if TYPE_CHECKING:
    from stoker.training.handover import Handover

T = TypeVar("T")
_EVIDENCE_CHARACTERS = 8000


class Run:
    """One job, as its own code sees it. ``log`` may be called from any thread, the rest from one."""

    def __init__(self, task: RunTask | None = None, speaker: Speaker | None = None) -> None:
        """``task``: inside a job; ``speaker``: in its main process."""
        self._task, self._speaker = task, speaker
        self._course = Course(task, speaker) if task and speaker else None
        self._handover: Handover | None = None
        self._stop_seen = False

    @property
    def active(self) -> bool:
        """Whether this is the main process of a job."""
        return self._course is not None

    @property
    def job(self) -> int | None:
        """The job's number; None outside Stoker."""
        return self._task.job if self._task else None

    @property
    def attempt(self) -> int:
        """1 at the first try, 2 at the second, …"""
        return self._task.attempt if self._task else 1

    @property
    def resumed(self) -> bool:
        """Whether ``resume`` has loaded a checkpoint."""
        return self._course is not None and self._course.resumed

    @property
    def epoch(self) -> int:
        """Epochs that are completed, over all attempts."""
        return self._course.place.epoch if self._course else 0

    @property
    def step(self) -> int:
        """Steps that are completed, over all attempts: those of ``steps``, else how often something was logged."""
        return self._course.place.step if self._course else 0

    @property
    def output(self) -> Path:
        """The folder whose files are kept with the job; outside Stoker ``output``, made where it is missing."""
        folder = Path(self._task.output if self._task else os.environ.get("STOKER_OUTPUT", "output"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def data(self, name: str) -> Path:
        """The folder of a data set of the job; outside Stoker ``data/NAME``, there or not.

        Raises TrainingFailed (``data_missing``): the job was not given it.
        """
        if self._task is None:
            return Path(os.environ.get("STOKER_DATA", "data")) / name
        folder = Path(self._task.data)
        if not (folder / name).exists():
            there = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
            given = f"the job was given {', '.join(there)}" if there else "the job was given none"
            raise TrainingFailed("data_missing", f"no data set {quoted(name)}: {given}", "name it under `datasets`")
        return folder / name

    def log(self, metrics: Mapping[str, Any] | None = None, /, *, step: int | None = None, **named: Any) -> None:
        """Add a point to the curve of each metric: ``run.log(loss=loss)``, ``run.log({"train/loss": loss})``.

        Args:
            metrics: Names -> numbers, or tensors and arrays of one element. What is none is left out, with a note.
            step: Where on the axis, never falling; by default ``run.step`` (inside ``steps``, the present one counts
                already), else how often something was logged.
            named: More of them.
        """
        if self._course is None or self._speaker is None:
            return
        self._speaker.log({**(metrics or {}), **named}, self._course.now(step))
        self._course.tell_first_step()
        self._course.report()

    def progress(self, done: int, total: int) -> None:
        """Say how far it has come, where ``epochs`` and ``steps`` do not: ``done`` of ``total``."""
        if self._course is not None:
            self._course.shown = max(0, int(done)), max(0, int(total))
            self._course.report()

    def resume(self, **kept: Any) -> SimpleNamespace:
        """Load the latest checkpoint, if there is one, into these objects, and keep them in all that follow.

        Args:
            kept: By name: whatever has ``state_dict`` and ``load_state_dict`` (model, optimizer, schedule, scaler, …),
                a generator of torch, numpy or ``random``, or plain data: numbers, texts, lists, dicts, tensors, arrays.

        Returns the values by name: assign to them (``kept.best = 0.5``) to keep something else. Lists, dicts, sets,
        tensors and arrays are also filled in place. All random generators are put where they were, now and again when
        the loop begins.

        Raises TrainingFailed (``checkpoint_mismatch``): the checkpoint is damaged, or of other objects.
        """
        return self._course.keep(kept) if self._course else SimpleNamespace(**kept)

    def epochs(self, count: int) -> Iterator[int]:
        """Count epochs up to ``count`` from where the checkpoint left them: 0, …, count - 1.

        At the end of an epoch a checkpoint is written where one is due, and the process ends if it was asked to.
        """
        return self._course.epochs(count) if self._course else iter(range(count))

    def steps(self, loader: Iterable[T]) -> Iterator[T]:
        """Give the batches of an epoch from where the checkpoint left it; one such loop an epoch.

        After a step a checkpoint is written where one is due, and the process ends if it was asked to.

        Args:
            loader: A DataLoader, or anything that can be iterated over once an epoch, in an order that depends on the
                random generators alone.
        """
        return self._course.steps(loader) if self._course else iter(loader)

    def checkpoint(self, **metrics: Any) -> None:
        """Log metrics, and write a checkpoint: at the end of the step inside ``steps``, else of the epoch, else now.

        The best checkpoint is that with the highest ``validation_accuracy``. Raises InvalidInput for an object whose
        state is not data, TrainingFailed (``disk_full``).
        """
        if self._course is not None:
            if metrics:
                self.log(metrics)
            self._course.checkpoint()

    @property
    def should_stop(self) -> bool:
        """Whether the job was asked to stop; ``epochs`` and ``steps`` look by themselves. Then call ``leave``."""
        if self._course is None:
            return False
        self._course.listen()
        self._stop_seen |= self._course.stop_asked
        return self._course.stop_asked

    def leave(self) -> None:
        """Write a checkpoint and end the process, to be continued later; does nothing outside Stoker.

        Call it at the end of a step. In an epoch without ``steps`` no checkpoint is written: it is begun again.
        Raises SystemExit.
        """
        if self._course is not None:
            self._course.leave()

    def predictions(self, labels: Any, predicted: Any, classes: Any = None, probabilities: Any = None) -> None:
        """Hand in what was predicted for each of N test images, in test order; accuracies are counted from it.

        Args:
            labels: (N,) integers, 0 ≤ label < number of classes.
            predicted: (N,) integers like them, or scores (N, classes), of which the highest counts.
            classes: Their names; by default their numbers.
            probabilities: (N,) of the predicted class, or (N, classes); by default not known.

        Raises InvalidInput.
        """
        if (handover := self._handing_over()) is not None:
            handover.predictions(labels, predicted, classes, probabilities)

    def result(self, **values: Any) -> None:
        """Hand in what came out: numbers, texts, lists and dicts, tensors and arrays. Later calls add to earlier ones.

        Raises InvalidInput for what is not data.
        """
        if (handover := self._handing_over()) is not None:
            handover.result(values)

    def fail(self, error: BaseException) -> bool:
        """Say why the run ends by this error, where nobody else can know: a NaN, a checkpoint, a full disk.

        Returns whether anything was said.
        """
        failure = error if isinstance(error, TrainingFailed) else None
        if failure is None and self._speaker is not None and self._speaker.nan:
            failure = nan_loss(f"{self._speaker.nan}; then:\n{last_lines(error, 8)}")
        if failure is None or self._speaker is None:
            return False
        words = {"class": failure.failure_class, "evidence": failure.evidence[:_EVIDENCE_CHARACTERS]}
        self._speaker.send("failure", **words, fix=failure.fix)
        return True

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message of the protocol, for what is not the script's own: the cell of a notebook that runs."""
        if self._speaker is not None:
            self._speaker.send(kind, **fields)

    def close(self) -> None:
        """At the end of the process: say the rest, and that it stopped because it was asked to, if it did."""
        if self._course is None or self._speaker is None or self._course.left:
            return
        try:
            self._course.wait()
        except TrainingFailed as error:
            self.fail(error)
        if self._stop_seen and self._handover is None:
            self._speaker.send("stopped", step=self.step)
        self._speaker.close()

    def mute(self) -> None:
        """In a forked child: from now on as outside Stoker, but for the folders. The parent goes on speaking."""
        if self._speaker is not None:
            self._speaker.mute()
        self._course = self._speaker = None

    def _handing_over(self) -> "Handover | None":
        if self._handover is None and self._task is not None and self._speaker is not None:
            from stoker.training.handover import Handover  # noqa: PLC0415 - it loads numpy

            self._handover = Handover(Path(self._task.scratch), self._speaker)
        return self._handover if self._speaker is not None else None
