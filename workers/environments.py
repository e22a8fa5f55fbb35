"""Virtual environments for programs that need more than the worker has: layered on its torch, made once, kept.

An environment sees the worker's own packages through a .pth file; pip, which runs below the fork server like any
trainer, adds what is missing beside them. It lies in the cache under a hash of all that decides what is in it.
"""

import hashlib
import json
import os
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
from urllib.parse import urlsplit

from stoker.errors import Unavailable
from stoker.settings import Settings
from stoker.training import cache
from stoker.training.failure import TrainingFailed
from stoker.workers import execution
from stoker.workers.bounds import Bounds
from stoker.workers.ends import end
from stoker.workers.findings import FindingsRefused, read_limited
from stoker.workers.interpreters import Interpreter, of_worker, version
from stoker.workers.logfile import LogFile
from stoker.workers.orders import Order
from stoker.workers.reporting import Report
from stoker.workers.runs import Run
from stoker.workers.trainers import ForkServer, Trainer

FORMAT = 1  # part of the hash
PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{sys.prefix}/pip.conf")
SYSTEM_FILES = ("/etc/os-release", "/etc/lsb-release", "/etc/debian_version")  # pip tells its index about them
COMPLETE = "complete"  # a file in each environment that was made to its end
PINNED = ("torch", "torchvision", "torchaudio", "triton")  # never made anew: gigabytes, and fit for this machine
PIP_OPTIONS = (
    "--no-input",
    "--no-color",
    "--no-cache-dir",
    "--progress-bar=off",
    "--no-warn-script-location",
    "--disable-pip-version-check",
)
REQUIREMENTS_LIMIT_BYTES = 10**6
LOOK_SECONDS = 0.5
MEASURE_SECONDS = 2.0
LAST_LINES = 15
_OF_THE_CODE = re.compile(r"^\s*-|[/\\]", re.MULTILINE)  # an option, or a path: other files may decide too
_ADDRESS = re.compile(r"\b[a-z+]+://\S*?([^/\s]*)(?=[\s)]|$)", re.IGNORECASE)
_HOST = re.compile(r"host='[^']*'")
_PROCESSED = re.compile(r"^(\s*Processing )\S*/", re.MULTILINE)
_WHERE = re.compile(r"^(Looking in (indexes|links):).*$", re.MULTILINE)


def hide_addresses(text: str) -> str:
    """What pip prints, without the places where this worker finds packages."""
    text = _PROCESSED.sub(r"\1…/", _WHERE.sub(r"\1 …", text))
    return _HOST.sub("host='…'", _ADDRESS.sub(r"…/\1", text))


def pip_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Where pip finds packages, as the worker's own environment says."""
    found = {name: value for name, value in environ.items() if name.startswith("PIP_")}
    home = Path(environ.get("HOME", "/"))
    for place in (home / ".config/pip/pip.conf", home / ".pip/pip.conf"):
        if place.is_file():
            found.setdefault("PIP_CONFIG_FILE", str(place))
    return found


def package_sources(environment: Mapping[str, str]) -> list[str]:
    """What pip reads of this machine: its configuration, and the folders and files that are named there."""
    files = [*PIP_FILES, *([environment["PIP_CONFIG_FILE"]] if "PIP_CONFIG_FILE" in environment else [])]
    said = [value for name, value in environment.items() if name.startswith("PIP_")]
    said += [Path(name).read_text(errors="replace") for name in files if os.access(name, os.R_OK)]
    words = " ".join(said).replace("=", " ").split()
    named = [urlsplit(word).path if word.startswith("file:") else word for word in words]
    return [*SYSTEM_FILES, *files, *(path for path in named if path.startswith("/"))]


@dataclass(frozen=True, slots=True)
class Building:
    """What one job's environment is made of, and for whom."""

    run: Run
    requirements: str  # path inside the code
    code: Path  # where the code lies
    digest: str  # of the code
    scratch: Path
    report: Report


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
        base = of_worker()
        pins = {name: found for name, found in base.installed().items() if name in PINNED}
        folder = self.settings.cache / "environments" / _key(wanted, pins)
        folder.parent.mkdir(parents=True, exist_ok=True)
        check = wanted.run.check
        _say(wanted, 0)
        with cache.locked(folder, check, shared=True):  # counts as a use: it is not removed between here and there
            complete = (folder / COMPLETE).exists()
        if not complete:
            with cache.locked(folder, check):
                if not (folder / COMPLETE).exists():
                    self._build(folder, base, pins, wanted)
            cache.trim(self.settings.cache, self.settings.cache_bytes, time.time())
        with cache.locked(folder, check, shared=True):
            yield _interpreter(folder, base)

    def _build(self, folder: Path, base: Interpreter, pins: Mapping[str, str], wanted: Building) -> None:
        """Make an environment in its place, since it cannot be moved; the lock is held."""
        cache.remove_folder(folder)
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        made = _interpreter(folder, base)
        layers = "".join(f"{path}\n" for path in base.packages)
        (made.packages[0] / "worker.pth").write_text(layers)
        if (own := Path(sys.prefix) / "pip.conf").is_file():  # it holds for one environment only
            shutil.copyfile(own, folder / "pip.conf")
        constraints = wanted.scratch / "constraints.txt"
        constraints.write_text("".join(f"{name}=={found}\n" for name, found in pins.items()))
        self._install(folder, self._order(folder, made, constraints, wanted), wanted)
        (folder / COMPLETE).touch()

    def _order(self, folder: Path, made: Interpreter, constraints: Path, wanted: Building) -> Order:
        arguments = ["-m", "pip", "install", *PIP_OPTIONS, "-c", str(constraints), "-r", wanted.requirements]
        scratch = str(wanted.scratch)
        variables = {**self.environment, "PATH": made.path, "HOME": scratch, "TMPDIR": scratch}
        python = str(made.python)
        return Order(
            id=str(wanted.run.id),
            task={
                "kind": "script",
                "start": execution.write(wanted.scratch, str(wanted.code), python, [python, *arguments], variables),
            },
            environment={},
            scratch=scratch,
            title=f"env {wanted.run.claimed.job_number}",
            deadline=wanted.run.deadline,
            confinement=self.bounds.confinement(
                wanted.scratch,
                network=True,
                memory_bytes=wanted.run.claimed.spec.resources.memory,
                read_only=package_sources(self.environment),
                read_write=[folder],
            ),
        )

    def _install(self, folder: Path, order: Order, wanted: Building) -> None:
        """Run pip, and pass on what it says.

        Raises TrainingFailed; what ``check`` raises. Nothing of it is left running.
        """
        log = LogFile(wanted.scratch / "environment.log")
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
        measure_due = began + MEASURE_SECONDS
        while not trainer.gone:
            trainer.wait(LOOK_SECONDS)
            wanted.run.check()
            now = time.monotonic()
            if now - began - trainer.time_frozen(now) > self.settings.environment_seconds:
                raise self._stopped(f"took longer than {self.settings.environment_seconds:g} s", log)
            if now > measure_due:
                measure_due = now + MEASURE_SECONDS
                self._measure(folder, log)
            wanted.report.log(hide_addresses(log.read()))
            _say(wanted, now - began)
            wanted.report.write_if_due()
        wanted.report.log(hide_addresses(log.read_end()))
        if trainer.lost:
            raise Unavailable("the fork server")
        if trainer.status != 0:
            raise _failed(
                hide_addresses(log.last_lines(LAST_LINES)) or f"pip ended with status {trainer.status}", _fix(log)
            )
        self._measure(folder, log)

    def _measure(self, folder: Path, log: LogFile) -> None:
        size = cache.measured(folder)
        cache.weigh(folder, size)
        if size > self.settings.environment_bytes:
            raise self._stopped(f"has more than {self.settings.environment_bytes:,} bytes", log)

    @staticmethod
    def _stopped(why: str, log: LogFile) -> TrainingFailed:
        return _failed(f"the environment {why}; the last that pip said:\n{hide_addresses(log.last_lines(5))}", "")


def _interpreter(folder: Path, base: Interpreter) -> Interpreter:
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return Interpreter(folder / "bin" / "python", (packages, *base.packages))


def _key(wanted: Building, pins: Mapping[str, str]) -> str:
    """A hash of all that decides what will be in an environment."""
    try:
        text = read_limited(wanted.code, wanted.requirements, REQUIREMENTS_LIMIT_BYTES).decode()
    except (FindingsRefused, UnicodeDecodeError) as error:
        fix = "name a file of the code in environment.requirements (is it left out by .gitignore or .stokerignore?)"
        raise _failed(f"the file of its requirements: {error}", fix) from None
    decisive: dict[str, Any] = {
        "format": FORMAT,
        "requirements": text,
        "python": version(),
        "base": str(of_worker().python),
        "platform": sysconfig.get_platform(),
        "pins": dict(pins),
    }
    if _OF_THE_CODE.search(text):
        decisive["code"] = wanted.digest
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _say(wanted: Building, seconds: float) -> None:
    at = {"epoch": 0, "epochs": 0, "step": int(seconds), "steps": 0, "images_per_second": None}
    wanted.report.progress({"phase": "environment", **at})


def _failed(evidence: str, fix: str) -> TrainingFailed:
    return TrainingFailed("environment_failed", evidence, fix)


def _fix(log: LogFile) -> str:
    said = log.tail
    if "conflict" in said and "torch" in said:
        return "leave torch and what belongs to it out of the requirements: jobs use the worker's own"
    if "No matching distribution" in said or "ResolutionImpossible" in said:
        return "correct the name or the version in the requirements; not every package is there for every Python"
    if "onnection" in said or "name resolution" in said:
        return "the worker does not reach its package index: ask its administrator"
    return "read what pip said, at the end of the log"
