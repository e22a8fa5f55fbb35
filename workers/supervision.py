"""Watch one trainer from its order to its end: take what it says, pass on what is asked, stop it when it must stop."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from stoker.log import Events
from stoker.settings import Settings
from stoker.workers import host, sandbox
from stoker.workers.consumption import Consumption
from stoker.workers.logfile import LogFile
from stoker.workers.reporting import Report
from stoker.workers.runs import Asked, Run
from stoker.workers.storing import Storing
from stoker.workers.trainers import Trainer
from stoker.workers.usage import Meter

events = Events(__name__)
LONGEST_WAIT_SECONDS = 1.0
STACKS_SECONDS = 0.5  # for a stalled trainer to print its stacks
LAST_GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL when the whole worker stops
LOG_SECONDS = 0.5
KILL_SECONDS = 30.0  # for SIGKILL to be effective


class Step(Enum):
    """What is done to a trainer that must end, in this order."""

    ASK = "ask for a checkpoint and an end"
    STACKS = "let it print its stacks"
    TERMINATE = "SIGTERM"
    KILL = "SIGKILL"
    GIVE_UP = "take it for lost"


class Limit(Enum):
    """Why Stoker itself stopped a trainer."""

    TIME = "time_limit"
    STALLED = "stalled"
    DEVICE = "device_error"
    MEMORY = "host_out_of_memory"
    PROCESSES = "user_error"


@dataclass(slots=True)
class Sight:
    """What was seen of a trainer; all that the verdict needs."""

    status: int | None = None  # exit code, minus the signal, or trainers.LOST
    limit: Limit | None = None
    own_code: bool = False  # a script or notebook: nothing that it says is Stoker's word
    failure: dict[str, Any] | None = None  # what it said itself
    device_fault: str | None = None  # what the worker itself found wrong with a device of its own
    result: dict[str, Any] | None = None
    predictions: dict[str, Any] | None = None
    images: dict[str, Any] | None = None
    stopped: bool = False  # it said that it stopped as asked
    lost: str | None = None  # why it ended by no fault of its own
    pid: int = 0
    memory_kills: int = 0  # processes that the kernel killed for want of memory, meanwhile
    peak_memory_bytes: int = 0  # of all its processes together; 0: it ended before it was looked at
    memory_limit_bytes: int = 0
    tasks_limit: int = 0
    tasks: int = 0  # processes and threads, at the last look
    last_lines: str = ""
    printed: str = ""  # the end of its log
    cpu_seconds: float = 0.0  # of it and all below it
    gpu_bytes: int | None = None  # the most of its devices' memory that it was seen to hold


class Supervision:
    """One trainer under watch. ``watch`` returns when it is gone and all that it said was taken."""

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        log: LogFile,
        report: Report,
        storing: Storing,
        settings: Settings,
        on_first_step: Callable[[], bool],
        meter: Meter,
    ) -> None:
        """``on_first_step`` notes the first step, and returns whether that worked; ``meter`` measures the trainer."""
        self._run, self._trainer, self._log, self._report, self._storing = run, trainer, log, report, storing
        self._settings, self._on_first_step, self._meter = settings, on_first_step, meter
        self._own_code = run.claimed.spec.code is not None
        self._heard = False  # whether it has ever said anything
        resources = run.claimed.spec.resources
        self.sight = Sight(
            own_code=self._own_code,
            memory_kills=host.out_of_memory_kills(),
            memory_limit_bytes=resources.memory,
            tasks_limit=sandbox.tasks(resources.cpus),
        )
        self._moved = self._active()
        self._position: tuple[Any, ...] = ()  # the progress that moved last
        self._first_step_due = False
        self._answered = (Asked.NOTHING, False)
        self._steps: dict[Step, float] = {}  # what is still to be done to stop it, and when (monotonic)
        self._next_log = 0.0
        self._told = 0  # refusals that were passed on
        self._consumption = Consumption()

    def watch(self) -> Sight:
        """Watch until the end.

        Raises AttemptClosed; the trainer is then still there.
        """
        while not self._trainer.gone:
            for message in self._trainer.wait(self._wait_seconds()):
                self._take(message)
            self._answer()
            self._measure()
            self._check_limits()
            self._check_consumption()
            self._act()
            self._write()
        self._finish()
        return self.sight

    def _active(self) -> float:
        """Monotonic seconds in which it was not frozen: what limits are measured by."""
        now = time.monotonic()
        return now - self._run.frozen_seconds - self._trainer.time_frozen(now)

    def _wait_seconds(self) -> float:
        waits = [LONGEST_WAIT_SECONDS, self._consumption.due - time.monotonic()]
        if self._steps:
            waits.append(min(self._steps.values()) - time.monotonic())
        if not self._report.empty:
            waits.append(self._report.wait_seconds)
        if self._first_step_due:
            waits.append(0.1)
        return max(0.0, min(waits))

    def _take(self, message: dict[str, Any]) -> None:
        kind, self._heard = message["type"], True
        if kind in ("progress", "cell"):
            self._take_progress(message)
        elif kind == "metrics":
            self._report.metrics(message)
        elif kind == "first_step":
            self._first_step_due = True
        elif kind == "checkpoint":
            self._storing.checkpoint(message)
        elif kind == "note":
            self._report.note(message["text"])
        elif kind in ("failure", "result", "predictions", "images"):
            setattr(self.sight, kind, message)
        elif kind == "stopped":
            self.sight.stopped = True
        if self._first_step_due:
            self._first_step_due = not self._on_first_step()

    def _take_progress(self, message: dict[str, Any]) -> None:
        """Pass on how far it has come; a stall is judged by whether that is further than before."""
        if message["type"] == "cell":
            self._report.cell(message)
            position = ("cell", message["index"], 0)
        else:
            self._report.progress(message)
            position = (message["phase"], message["epoch"], message["step"])
        if position != self._position or message.get("phase") == "prepare":
            self._position, self._moved = position, self._active()

    def _measure(self) -> None:
        """Look at what it uses. Own code need not tell how far it is: it moves as long as it computes or prints."""
        if self._trainer.pid and self._trainer.status is None:
            now = self._active()
            if self._meter.look(self._trainer.pid, now) and self._own_code:
                self._moved = now

    def _answer(self) -> None:
        """Begin to do what is asked; to own code that never said anything, nobody listens, only a signal speaks."""
        if (asked := (self._run.asked, self._run.stopping)) == self._answered:
            return
        self._answered = asked
        settings, listens = self._settings, self._heard or not self._own_code
        if self._run.stopping:
            grace = settings.stop_grace_seconds
            self._plan({Step.ASK: 0.0, Step.TERMINATE: grace * listens, Step.KILL: grace + LAST_GRACE_SECONDS})
        if self._run.asked is Asked.PREEMPT:
            grace = settings.preempt_grace_seconds
            last = grace + settings.cancel_grace_seconds
            self._plan({Step.ASK: 0.0, Step.TERMINATE: grace * listens, Step.KILL: last})
        if self._run.asked is Asked.CANCEL:
            self._plan({Step.TERMINATE: 0.0, Step.KILL: settings.cancel_grace_seconds})
        if self._run.asked is Asked.CLOSED:
            self._plan({Step.KILL: 0.0})

    def _check_limits(self) -> None:
        if self._steps or self._trainer.status is not None:
            return
        if self._run.device_fault:  # it may hang in the driver, and would say nothing itself
            self.sight.limit, self.sight.device_fault = Limit.DEVICE, self._run.device_fault
            self._plan({Step.KILL: 0.0})
            return
        left, active = self._run.claimed.time_left_seconds, self._active()
        if left is not None and active - self._run.began > left:
            self.sight.limit = Limit.TIME
            self._plan({Step.TERMINATE: 0.0, Step.KILL: self._settings.cancel_grace_seconds})
        elif active - self._moved > self._run.claimed.spec.stall_timeout:
            self.sight.limit = Limit.STALLED
            self._plan({Step.STACKS: 0.0, Step.KILL: STACKS_SECONDS})

    def _check_consumption(self) -> None:
        seen, limit = self._consumption, self.sight.memory_limit_bytes
        if not self._trainer.pid or self._trainer.status is not None or time.monotonic() < seen.due:
            return
        over = seen.look(self._trainer.pid, limit) and self._settings.memory_limit == "kill"
        self.sight.peak_memory_bytes, self.sight.tasks = seen.peak_bytes, seen.tasks
        if self.sight.limit is None and (over or seen.tasks > self.sight.tasks_limit):
            self.sight.limit = Limit.MEMORY if over else Limit.PROCESSES
            self._plan({Step.KILL: 0.0})

    def _plan(self, steps: dict[Step, float]) -> None:
        """Plan steps, in seconds from now; what is planned already is only ever hastened."""
        now = time.monotonic()
        for step, seconds in (steps | {Step.GIVE_UP: steps[Step.KILL] + KILL_SECONDS}).items():
            self._steps[step] = min(self._steps.get(step, math.inf), now + seconds)

    def _act(self) -> None:
        now = time.monotonic()
        for step in [step for step in Step if self._steps.get(step, math.inf) <= now]:
            del self._steps[step]
            self._take_step(step)

    def _take_step(self, step: Step) -> None:
        trainer = self._trainer
        if step is Step.ASK:
            trainer.ask("stop")
        elif step is Step.STACKS:
            trainer.signal(signal.SIGUSR1)
        elif step is Step.TERMINATE:
            trainer.signal(signal.SIGTERM)
        elif step is Step.KILL:
            trainer.kill()
        else:  # not even SIGKILL has ended it, stuck in the kernel; its device is not to be trusted
            events.error("trainer_unkillable", pid=trainer.pid)
            trainer.abandon()

    def _write(self) -> None:
        now = time.monotonic()
        if now >= self._next_log:
            self._next_log = now + LOG_SECONDS
            if text := self._log.read():
                self._report.log(text)
                self._moved = self._active() if self._own_code else self._moved
        refused = self._trainer.inbox.refused
        for refusal in refused[self._told :]:
            self._report.note(f"the trainer sent {refusal}: dropped")
        self._told = len(refused)
        if self._first_step_due:
            self._first_step_due = not self._on_first_step()
        self._report.write_if_due()

    def _finish(self) -> None:
        sight = self.sight
        sight.status, sight.lost, sight.pid = self._trainer.status, self._trainer.lost, self._trainer.pid
        sight.memory_kills = host.out_of_memory_kills() - sight.memory_kills
        self._report.log(self._log.read_end())
        sight.last_lines, sight.printed = self._log.last_lines(12), self._log.tail
        sight.cpu_seconds = max(self._meter.cpu_seconds, self._trainer.cpu_seconds)
        sight.gpu_bytes = self._meter.gpu_bytes
