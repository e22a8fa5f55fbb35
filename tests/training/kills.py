"""Kills at random steps, and inside the writing of checkpoints: ``python -m tests.training.kills [--kills 50]``.

Prints a table; exits 1 if a killed training ended with other bits than an undisturbed one, or if what had been
announced before a kill could not be loaded after it.
"""

import argparse
import itertools
import json
import mmap
import os
import platform
import random
import signal
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from stoker.training import checkpoint, resume, tensorfile, trainer
from stoker.training.channel import Channel
from stoker.training.checkpoint import Written
from stoker.training.config import CheckpointSource, Task, TrainConfig
from stoker.training.failure import TrainingFailed
from stoker.training.loop import Training
from tests.faults.report import say
from tests.support.checkpoints import CPU, stepped
from tests.training.children import Child, finish, of_kind, source_of, task
from tests.training.outcomes import RECIPES, Curves, Outcome, add, undisturbed

LOOK_SECONDS = 0.0002  # between two looks at the step of a trainer
PLACES = ("in the bytes", "before the sync", "before it is announced")


class Steps:
    """The step of a trainer in another process, read while it runs."""

    def __init__(self) -> None:
        """Begin at 0."""
        self._page = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        """The last completed step."""
        return int(struct.unpack("<q", self._page[:8])[0])

    def train(self, given: Task, channel: Channel) -> int:
        """Run a task in a forked process, writing down each step."""
        plain = Training._count

        def count(training: Training, loss: torch.Tensor, images: int) -> None:
            plain(training, loss, images)
            self._page[:8] = struct.pack("<q", training.state.step)

        setattr(Training, "_count", count)  # noqa: B010 - mypy knows that it is a method; in the forked process only
        return trainer.run(given, channel)


def killed_at(step: int, config: TrainConfig, cache: Path, folder: Path) -> tuple[Outcome, int]:
    """SIGKILL a run as soon as it has made so many steps, and finish it; the step that it went on from, too."""
    steps, given = Steps(), task(config, cache, folder / "killed")
    with Child(given, steps.train) as child:
        ended = threading.Event()

        def kill() -> None:
            while steps.value < step:
                if ended.wait(LOOK_SECONDS):
                    return
            os.kill(child.pid, signal.SIGKILL)

        watcher = threading.Thread(target=kill)
        watcher.start()
        messages = list(child.messages())
        ended.set()
        watcher.join()
        child.wait()
    announced = of_kind(messages, "checkpoint")
    source = source_of(announced[-1], Path(given.scratch)) if announced else None
    curves: Curves = {}
    add(curves, messages, upto=source.step if source else 0)
    last = finish(task(config, cache, folder / "rest", checkpoint=source))
    add(curves, last)
    written, folder = (last, folder / "rest") if of_kind(last, "checkpoint") else (messages, Path(given.scratch))
    final = source_of(of_kind(written, "checkpoint")[-1], folder)
    return Outcome(folder.parent / "rest", final, curves), source.step if source else 0


def die(*_: object) -> NoReturn:
    """End as by ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def write_and_die(folder: Path, tell: int, number: int, place: str, share: float) -> None:
    """Write checkpoints, and die while the one of this number is written: at a place, in the bytes after a share."""
    model, optimizer = stepped()
    write_all = tensorfile.write_all

    def half(file: Any, chunk: memoryview | bytes) -> int:
        if isinstance(chunk, memoryview):  # not the header
            write_all(file, chunk[: int(share * len(chunk))])
            die()
        return write_all(file, chunk)

    def announce(done: Written) -> None:
        os.write(tell, json.dumps([done.path, done.sha256, done.step]).encode() + b"\n")

    deadly: dict[str, tuple[object, str, Callable[..., Any]]] = {
        "in the bytes": (tensorfile, "write_all", half),
        "before the sync": (os, "fsync", die),
        "before it is announced": (tensorfile, "sync_folder", die),
    }
    writer = checkpoint.Writer(folder, CPU, announce)
    for step in itertools.count(1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
        if step == number:
            setattr(*deadly[place])
        writer.save(step, checkpoint.tensors_of(model, optimizer), {"run": {}, "state": {}}, {})
        writer.wait()


def after_a_kill(folder: Path, number: int, place: str, share: float) -> list[str]:
    """Kill a process that writes checkpoints; what of those it had announced cannot be loaded."""
    listen, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_and_die(folder, tell, number, place, share)
        finally:
            os._exit(70)
    os.close(tell)
    with os.fdopen(listen) as lines:
        announced = [CheckpointSource(str(folder / path), *rest) for path, *rest in map(json.loads, lines)]
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    wrong = [] if status == -signal.SIGKILL else [f"it was not killed: {status}"]
    if len(announced) != number - 1:
        wrong.append(f"{len(announced)} were announced before number {number}")
    return wrong + [problem for one in announced if (problem := unloadable(one))]


def unloadable(source: CheckpointSource) -> str | None:
    """Why a checkpoint cannot be gone on from; None if it can."""
    model, _ = stepped()
    try:
        loaded = resume.load(source)
        resume.restore_weights(model, loaded)
    except TrainingFailed as failure:
        return str(failure)
    return None if loaded.document["step"] == source.step else f"it is of step {loaded.document['step']}"


def kill_steps(dice: random.Random, count: int, folder: Path) -> int:
    """Kill runs of all recipes in turn, each at a random step; how many ended with other bits."""
    cache, wrong = folder / "cache", 0
    finish(task(TrainConfig("digits"), cache, folder / "prepare", kind="prepare"))
    expected = {name: undisturbed(config, cache, folder / name) for name, config in RECIPES.items()}
    for number in range(count):
        name = list(RECIPES)[number % len(RECIPES)]
        step = dice.randrange(1, expected[name].step)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            found, source = killed_at(step, RECIPES[name], cache, Path(own))
        differences = found.differences(expected[name])
        wrong += bool(differences)
        verdict = f"DIFFERS in {', '.join(differences)}" if differences else "same bits"
        say(f"{number + 1:>3}  {name:<28} killed at step {step:>3}, went on from {source:>3}: {verdict}")
    say(f"kills at random steps: {count - wrong} of {count} bit-identical")
    return wrong


def kill_writes(dice: random.Random, count: int, folder: Path) -> int:
    """Kill processes in the middle of writing a checkpoint; after how many something could not be loaded."""
    wrong, places = 0, Counter[str]()
    for number in range(count):
        place = PLACES[number % len(PLACES)]
        places[place] += 1
        with tempfile.TemporaryDirectory(dir=folder) as own:
            problems = after_a_kill(Path(own), dice.randint(1, 4), place, dice.random())
        wrong += bool(problems)
        for problem in problems:
            say(f"{number + 1:>3}  {place}: {problem}")
    told = ", ".join(f"{times} {place}" for place, times in places.items())
    say(f"kills while a checkpoint is written ({told}): {wrong} of {count} left one that cannot be loaded")
    return wrong


def main() -> int:
    """Kill, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dice = random.Random(given.seed)
    say(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, seed {given.seed}")
    with tempfile.TemporaryDirectory() as folder:
        wrong = kill_writes(dice, given.writes, Path(folder)) + kill_steps(dice, given.kills, Path(folder))
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
