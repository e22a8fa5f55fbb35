"""A script that was killed, or asked to stop, at any step goes on as if it had never stopped."""

import os
import random
import signal
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

import stoker
from stoker.training import tensorfile
from stoker.training.config import CheckpointSource, Interval
from tests.support.scripts import Script

Points = dict[tuple[str, int], float]
PAUSE = 0.05  # seconds after each step of a script that is to be ended before its end, by whoever is late to see it


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Sums of eight numbers, each time with another noise from torch's and from Python's generator."""

    def __len__(self) -> int:
        return 320

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        clean = torch.arange(8.0) * index / 320
        return clean + torch.randn(8) * 0.1 + random.random() * 0.01, clean.sum(0, keepdim=True)


def train(loader: DataLoader[Any], pause: float) -> None:
    """Four epochs of 20 steps with all that has a state: dropout, a schedule, values, generators of one's own."""
    torch.manual_seed(0)
    random.seed(1)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=80)
    dice, history = np.random.default_rng(5), list[float]()
    run = stoker.current_run()
    kept = run.resume(net=net, optimizer=optimizer, schedule=schedule, dice=dice, history=history, total=0.0)
    for _ in run.epochs(4):
        for inputs, expected in run.steps(loader):
            optimizer.zero_grad()
            loss = (net(inputs + dice.normal() * 0.01) - expected).square().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            kept.total += loss.item()
            run.log(loss=loss)
            time.sleep(pause)
        history.append(kept.total)
        kept.total = 0.0
        run.log(mean=history[-1] / 20)
    run.result(history=history)


def in_order(pause: float = 0.0) -> None:
    train(DataLoader(Noisy(), batch_size=16), pause)


def shuffled(pause: float = 0.0) -> None:
    train(DataLoader(Noisy(), batch_size=16, shuffle=True), pause)


def with_a_generator(pause: float = 0.0) -> None:
    sampler = WeightedRandomSampler([1.0] * 320, 320, generator=torch.Generator().manual_seed(7))
    train(DataLoader(Noisy(), batch_size=16, sampler=sampler, generator=torch.Generator().manual_seed(8)), pause)


def with_workers(pause: float = 0.0) -> None:
    train(DataLoader(Noisy(), batch_size=16, shuffle=True, num_workers=2), pause)


def content(source: CheckpointSource | None) -> tuple[dict[str, Any], bytes]:
    """The tensors of a checkpoint: their places, and all bytes."""
    assert source is not None
    with Path(source.path).open("rb") as file:
        header = tensorfile.read_header(file)
        return {one.name: one for one in header.entries}, file.read()


def points(script: Script, upto: int | None = None) -> Points:
    """What it logged, up to the checkpoint from which the next one goes on."""
    curves = {key: script.points(key) for key in ("loss", "mean")}
    kept = {(key, step): value for key, curve in curves.items() for step, value in curve.items()}
    return {at: value for at, value in kept.items() if upto is None or at[1] <= upto}


def disturb(script: Script, how: str, after: int) -> None:
    """Let it write so many checkpoints, then end it."""
    script.until("checkpoint", after)
    if how == "kill":
        script.kill()
        return
    if how == "terminate":
        os.kill(script.pid, signal.SIGTERM)
    else:
        script.ask("stop")
    assert script.wait() == 0
    assert script.messages[-1]["type"] == "stopped"


@pytest.mark.parametrize(
    ("program", "how"),
    [(in_order, "kill"), (shuffled, "stop"), (with_a_generator, "terminate"), (with_workers, "kill")],
)
def test_a_script_ends_as_if_it_had_never_stopped(program: Any, how: str, tmp_path: Path) -> None:
    every, dice = Interval("step", 3), random.Random(how)
    with Script(tmp_path, program, every=every) as whole:
        assert whole.wait() == 0
        expected = content(whole.source()), points(whole), (whole.scratch / "result.json").read_bytes()
    source: CheckpointSource | None = None
    logged: Points = {}
    for attempt in range(2):
        slow = partial(program, PAUSE)
        with Script(tmp_path, slow, every=every, checkpoint=source, scratch=str(attempt)) as script:
            disturb(script, how, dice.randint(1, 4))
            source = script.source()
            assert source is not None
            logged |= points(script, upto=source.step)
    assert source is not None
    assert 6 <= source.step < 80
    with Script(tmp_path, program, every=every, checkpoint=source, scratch="last") as last:
        assert last.wait() == 0
        found = content(last.source()), logged | points(last), (last.scratch / "result.json").read_bytes()
    assert found == expected


def only_epochs(waits_in: int | None = None) -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    run = stoker.current_run()
    run.resume(model=net)
    for epoch in run.epochs(6):
        for _ in range(10):
            with torch.no_grad():
                net.weight += torch.randn(2, 4)
        sys.stdout.write(f"{epoch}\n")
        while epoch == waits_in and not run.should_stop:
            time.sleep(0.01)


def test_without_steps_a_job_goes_on_from_the_last_epoch_that_was_completed(tmp_path: Path) -> None:
    with Script(tmp_path, only_epochs, scratch="whole") as whole:
        assert whole.wait() == 0
        expected = content(whole.source())
    with Script(tmp_path, partial(only_epochs, waits_in=3), scratch="first") as first:
        first.until("checkpoint")
        first.ask("stop")
        assert first.wait() == 0
        source = first.source()
    assert source is not None
    assert first.of_kind("stopped") == [{"type": "stopped", "step": source.step}]
    with Script(tmp_path, only_epochs, checkpoint=source, scratch="second") as second:
        assert next(second.printed()) == str(source.epoch)
        assert second.wait() == 0
        assert content(second.source()) == expected
    with Script(tmp_path, only_epochs, checkpoint=second.source(), scratch="third") as third:
        assert list(third.printed()) == []  # it was complete
        assert (third.wait(), third.of_kind("checkpoint")) == (0, [])


class Odd:
    """An object with a state of everything that can be kept."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {
            "tensors": [torch.tensor(2.5), torch.arange(6).view(2, 3), torch.tensor([1 + 2j]), torch.zeros(0, 3)],
            "arrays": (np.arange(4, dtype=np.uint16), np.float64(0.1), np.array(3.0)),
            3: {"a", "b"},
            "queue": deque([1, 2], maxlen=5),
            "rest": [None, True, -0.0, float("inf"), 2**70, b"\x00\xff", torch.float16, torch.device("cpu")],
            ("a", 1): {"1": 1, 1: torch.ones(1), "t": torch.ones(1, dtype=torch.bfloat16)},
        }

    def state_dict(self) -> dict[Any, Any]:
        return self.state

    def load_state_dict(self, state: dict[Any, Any]) -> None:
        self.state = state


def odd() -> None:
    run = stoker.current_run()
    thing, table, counts = Odd(), torch.zeros(3), {"seen": 0}
    before = repr(thing.state)
    if run.attempt == 1 and not (run.output / "second").exists():
        table += 4
        counts["seen"] = 2
        run.resume(thing=thing, table=table, counts=counts).best = 0.75
        run.checkpoint()
        return
    thing.state = {}
    kept = run.resume(thing=thing, table=table, counts=counts, best=0.0)
    found = (run.resumed, repr(thing.state) == before, table.tolist(), counts, kept.best, kept.counts is counts)
    sys.stdout.write(f"{found}\n")


def test_all_kinds_of_data_come_back_as_they_were(tmp_path: Path) -> None:
    with Script(tmp_path, odd, scratch="a") as first:
        assert first.wait() == 0
    (tmp_path / "b/output").mkdir(parents=True)
    (tmp_path / "b/output/second").touch()
    with Script(tmp_path, odd, checkpoint=first.source(), scratch="b") as second:
        assert list(second.printed()) == ["(True, True, [4.0, 4.0, 4.0], {'seen': 2}, 0.75, True)"]
