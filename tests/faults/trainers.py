"""``python -m tests.faults.trainers POINTS [OPTIONS] DESCRIPTOR``: a fork server whose trainers can be made to wait."""

import sys
from pathlib import Path
from typing import Any

from stoker.training import evaluate, tensorfile
from stoker.training.loop import Training
from stoker.workers import child
from tests.faults.launching import points_of, put_before
from tests.faults.points import Points
from tests.support.widening import let_write

CONTENT_BYTES = 10_000  # a longer piece of a file is its content, not its header


def job_number() -> int:
    """The job of this trainer, by the title that its order gave it."""
    return int(Path("/proc/self/comm").read_text().split()[1])


def install(points: Points) -> None:
    """Make the places."""

    def reach(point: str) -> None:
        points.reach(point, job_number(), Path.cwd().name)

    def after_first_step(training: Training) -> None:
        if training.saved_step < 0:  # not one that goes on from a checkpoint
            reach("first")

    write_all = tensorfile.write_all

    def in_two_halves(file: Any, chunk: memoryview | bytes) -> int:
        view = memoryview(chunk).cast("B")
        if len(view) < CONTENT_BYTES or not Path(file.name).name.startswith(".checkpoint-"):
            return write_all(file, view)
        half = write_all(file, view[: len(view) // 2])
        reach("write")
        return half + write_all(file, view[len(view) // 2 :])

    def while_evaluating(*_: object, **__: object) -> None:
        reach("evaluate")

    put_before(Training, "_after_first_step", after_first_step)
    tensorfile.write_all = in_two_halves
    put_before(evaluate, "evaluate", while_evaluating)


def main() -> None:
    """Serve."""
    points = points_of(sys.argv[1])
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    install(points)
    let_write(lambda _: points.folder)
    child.main()


if __name__ == "__main__":
    main()
