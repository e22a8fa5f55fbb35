"""Virtual environments for programs that need more than the worker has: layered on its torch, made once, kept.

An environment sees the worker's own packages through a .pth file; pip, which runs below the fork server like any
trainer, adds what is missing beside them. It lies in the cache under a hash of all that decides what is in it.

What pip installs runs its own code, and is trusted as little as a job: it writes the environment and a folder of its
own, nothing that the worker opens later. Where the hash does not cover the code, pip does not see the code.
"""

import hashlib
import json
import re
import shutil
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.errors import Unavailable
from stoker.settings import Settings
from stoker.training import cache
from stoker.training.failure import TrainingFailed
from stoker.workers import execution, pip, sandbox
from stoker.workers.bounds import Bounds
from stoker.workers.consumption import Consumption
from stoker.workers.ends import end
from stoker.workers.findings import FindingsRefused, read_limited
from stoker.workers.interpreters import Interpreter, of_worker, version
from stoker.workers.logfile import LogFile
from stoker.workers.orders import Order
from stoker.workers.reporting import Report
from stoker.workers.runs import Run
from stoker.workers.trainers import ForkServer, Trainer

FORMAT = 1  # part of the hash
PINNED = ("torch", "torchvision", "torchaudio", "triton")  # never made anew: gigabytes, and fit for this machine
REQUIREMENTS_LIMIT_BYTES = 10**6
LOOK_SECONDS = 0.5
MEASURE_SECONDS = 2.0
LAST_LINES = 15
# An option, a path or an archive: other files of the code decide too
_OF_THE_CODE = re.compile(
    r"^\s*[-.]|[/\\]|\.(whl|zip|tar|t?gz|tbz|txz|tlz|bz2|xz|lz|lzma)\b", re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Building:
    """What one job's environment is made of, and for whom."""

    run: Run
    requirements: str  # path inside the code
    code: Path  # where the code lies
    digest: str  # of the code
    scratch: Path
    report: Report

    @property
    def room(self) -> Path:
        """Where pip works: a folder that nothing reads once it has ended."""
        return self.scratch / "environment"

    def text(self) -> str:
        """What the file of requirements says.

        Raises TrainingFailed (``environment_failed``).
        """
        try:
            return read_limited(self.code, self.requirements, REQUIREMENTS_LIMIT_BYTES).decode()
        except (FindingsRefused, UnicodeDecodeError) as error:
            fix = "name a file of the code in environment.requirements (is it left out by .gitignore or .stokerignore?)"
            raise _failed(f"the file of its requirements: {error}", fix) from None


@dataclass(frozen=True, slots=True)
class Environments:
    """Makes environments, and finds those that were made."""

    settings: Settings
    fork_server: ForkServer
    environment: Mapping[str, str]  # what pip sees of the worker's
    bounds: Bounds

    @contextmanager
    def held(self, wanted: Building) -> Iterator[Interpreter]:
        """The interpreter of an environment, which stays until the block ends.

        Raises TrainingFailed (``environment_failed``), Interrupted, Unavailable, OSError.
        """
        if self.settings.environments == "forbidden":
            raise _failed(
                "this worker makes no environments (STOKER_ENVIRONMENTS=forbidden)",
                "use what the worker has, carry the package along in the code, or ask its administrator",
            )
        base, text = of_worker(), wanted.text()
        pins = {name: found for name, found in base.installed().items() if name in PINNED}
        folder = self.settings.cache / "environments" / _key(text, wanted.digest, pins)
        folder.parent.mkdir(parents=True, exist_ok=True)
        check = wanted.run.check
        _say(wanted, 0)
        with cache.held(folder, check, lambda: self._build(folder, base, pins, wanted, text), _is_complete):
            yield _interpreter(folder, base)

    def _build(self, folder: Path, base: Interpreter, pins: Mapping[str, str], wanted: Building, text: str) -> None:
        """Make an environment in its place, since it cannot be moved; the lock is held."""
        _mark(folder).unlink(missing_ok=True)
        cache.remove_folder(folder)
        try:
            venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
            made = _interpreter(folder, base)
            layers = "".join(f"{path}\n" for path in base.packages)
            (made.packages[0] / "worker.pth").write_text(layers)
            if (own := Path(sys.prefix) / "pip.conf").is_file():  # it holds for one environment only
                shutil.copyfile(own, folder / "pip.conf")
            wanted.room.mkdir(mode=0o700)
            constraints = "".join(f"{name}=={found}\n" for name, found in pins.items())
            (wanted.room / "constraints.txt").write_text(constraints)
            self._install(folder, self._order(folder, made, wanted, text), wanted)
        except BaseException:
            cache.remove_folder(folder)
            raise
        _mark(folder).touch()
        cache.trim(self.settings.cache, self.settings.cache_bytes, time.time())

    def _order(self, folder: Path, made: Interpreter, wanted: Building, text: str) -> Order:
        room, python = wanted.room, str(made.python)
        writable, place, name = [folder], room / "requirements", Path(wanted.requirements).name
        if _OF_THE_CODE.search(text):
            writable, place, name = [folder, wanted.code], wanted.code, wanted.requirements
        else:
            place.mkdir()
            (place / name).write_text(text)
        # -I: nothing in the folder where pip is called passes for a module of pip's, or of Python's
        arguments = ["-I", "-m", "pip", "install", *pip.OPTIONS, "-c", str(room / "constraints.txt"), "-r", name]
        variables = {**self.environment, "PATH": made.path, "HOME": str(room), "TMPDIR": str(room)}
        return Order(
            id=str(wanted.run.id),
            task={
                "kind": "script",
                "start": execution.write(room, str(place), python, [python, *arguments], variables),
            },
            environment={},
            scratch=str(room),
            title=f"env {wanted.run.claimed.job_number}",
            deadline=wanted.run.deadline,
            confinement=self.bounds.confinement(
                room,
                network=True,
                cpus=wanted.run.claimed.spec.resources.cpus,
                memory_bytes=wanted.run.claimed.spec.resources.memory,
                read_only=pip.package_sources(self.environment),
                read_write=writable,
            ),
        )

    def _install(self, folder: Path, order: Order, wanted: Building) -> None:
        """Run pip, and pass on what it says.

        Raises TrainingFailed; what ``check`` raises. Nothing of it is left running.
        """
        log = LogFile(wanted.room / "environment.log")
        trainer = self.fork_server.spawn(order, log.writer, wanted.run.check)
        wanted.run.attach(trainer)
        try:
            self._watch(folder, trainer, log, wanted)
        finally:
            wanted.run.attach(None)
            end(trainer)
            wanted.run.frozen_seconds += trainer.time_frozen(time.monotonic())
            log.close()

    def _watch(self, folder: Path, trainer: Trainer, log: LogFile, wanted: Building) -> None:
        began = time.monotonic()
        measure_due, seen = began + MEASURE_SECONDS, Consumption()
        while not trainer.gone:
            trainer.wait(LOOK_SECONDS)
            wanted.run.check()
            now = time.monotonic()
            self._check_consumption(seen, trainer, log, wanted)
            if now - began - trainer.time_frozen(now) > self.settings.environment_seconds:
                raise self._stopped(f"took longer than {self.settings.environment_seconds:g} s", log)
            if now > measure_due:
                measure_due = now + MEASURE_SECONDS
                self._measure(folder, log, wanted)
            wanted.report.log(pip.hide_addresses(log.read()))
            _say(wanted, now - began)
            wanted.report.write_if_due()
        wanted.report.log(pip.hide_addresses(log.read_end()))
        if trainer.lost:
            raise Unavailable("the fork server")
        if trainer.status != 0:
            raise _failed(
                pip.hide_addresses(log.last_lines(LAST_LINES)) or f"pip ended with status {trainer.status}",
                pip.fix(log.tail),
            )
        self._measure(folder, log, wanted)

    def _check_consumption(self, seen: Consumption, trainer: Trainer, log: LogFile, wanted: Building) -> None:
        """Hold what installs to the job's memory and processes: a package that is built is a program like any other."""
        if not trainer.pid or trainer.status is not None or time.monotonic() < seen.due:
            return
        resources = wanted.run.claimed.spec.resources
        over = seen.look(trainer.pid, resources.memory) and self.settings.memory_limit == "kill"
        more = "ask for more, or name packages that are built already"
        if over:
            held = f"{seen.peak_bytes / 1e9:.2f} GB; resources.memory is {resources.memory / 1e9:.2f} GB"
            raise self._stopped(f"took {held} while it was made", log, more)
        if seen.tasks > (most := sandbox.tasks(resources.cpus)):
            raise self._stopped(f"took {seen.tasks:,} processes and threads; {most:,} are allowed", log, more)

    def _measure(self, folder: Path, log: LogFile, wanted: Building) -> None:
        """Hold the environment to its limit, and what was put aside while it is made to the same."""
        size = cache.measured(folder)
        cache.weigh(folder, size)
        if max(size, cache.measured(wanted.room)) > self.settings.environment_bytes:
            raise self._stopped(f"has more than {self.settings.environment_bytes:,} bytes", log)

    @staticmethod
    def _stopped(why: str, log: LogFile, fix: str = "") -> TrainingFailed:
        return _failed(f"the environment {why}; the last that pip said:\n{pip.hide_addresses(log.last_lines(5))}", fix)


def _interpreter(folder: Path, base: Interpreter) -> Interpreter:
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return Interpreter(folder / "bin" / "python", (packages, *base.packages))


def _mark(folder: Path) -> Path:
    """A file beside each environment that was made to its end, where what is installed cannot write."""
    return folder.with_name(f".{folder.name}.complete")


def _is_complete(folder: Path) -> bool:
    return folder.is_dir() and _mark(folder).exists()


def _key(text: str, digest: str, pins: Mapping[str, str]) -> str:
    """A hash of all that decides what will be in an environment."""
    decisive: dict[str, Any] = {
        "format": FORMAT,
        "requirements": text,
        "python": version(),
        "base": str(of_worker().python),
        "platform": sysconfig.get_platform(),
        "pins": dict(pins),
    }
    if _OF_THE_CODE.search(text):
        decisive["code"] = digest
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _say(wanted: Building, seconds: float) -> None:
    at = {"epoch": 0, "epochs": 0, "step": int(seconds), "steps": 0, "images_per_second": None}
    wanted.report.progress({"phase": "environment", **at})


def _failed(evidence: str, fix: str) -> TrainingFailed:
    return TrainingFailed("environment_failed", evidence, fix)
