"""One run: a system, undisturbed references, clients and a nemesis, then the checker and the report."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from stoker.jobs.lifecycle import State
from stoker.jobs.models import Checkpoint, Job
from tests.faults import breaking, catalogue, phases, report, schedule, strikes
from tests.faults.checker import Violation, check
from tests.faults.clients import Api, Clients
from tests.faults.collecting import collect, outcome_of
from tests.faults.evidence import Evidence, Outcome
from tests.faults.history import History
from tests.faults.nemesis import STARTING_SECONDS, Nemesis
from tests.faults.recipes import LEAST_CHECKPOINTS, RECIPES
from tests.faults.report import say
from tests.faults.system import System, running
from tests.support.services import short_home
from tests.support.waiting import wait_for

REFERENCE_SECONDS = 60.0
LAST_SECONDS = 120.0  # for all jobs to end once nothing hurts them any more
MORE = 5.0  # times the seconds of the schedule may be spent on phases that were hit too seldom, on a busy machine
BACKLOG = 14  # unfinished jobs that the clients keep up, so that each phase has passers-by


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    seed: int
    jobs: int
    faults: int
    seconds: float  # of faults
    workers: int = 3
    apis: int = 2
    history: Path | None = None
    only: tuple[str, ...] = ()  # faults; with these, nothing is aimed at phases
    broken: tuple[str, ...] = ()  # builds that are tried at the end, and must be found out


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to."""

    history: History
    evidence: Evidence
    violations: list[Violation]
    missed: dict[str, int]
    green: list[str]  # broken builds that the checker did not find out
    seconds: float

    @property
    def red(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.violations or self.missed or self.green)


def run(size: Size) -> Verdict:
    """Start, hurt, check; then break the workers on purpose, where that is asked for, and check that it shows."""
    began = time.monotonic()
    history = History(size.history)

    def tell_time(text: str) -> None:
        say(f"  {time.monotonic() - began:5.1f} s  {text}")

    with short_home() as home:
        try:
            with running(home, history, workers=size.workers, apis=size.apis) as system:
                tell_time(f"{size.workers} workers and {size.apis} APIs are up")
                references = make_references(system, size.seed)
                tell_time(f"{len(references)} undisturbed runs are made")
                disturb(system, size)
                evidence = conclude(system)
                tell_time("all jobs have ended")
                green = [build for build in size.broken if not prove(system, references, build, size.seed)]
        finally:
            keep_logs(home, size)
        tell_time("all is stopped")
        note_leftovers(home, history)
        tell_time("nothing is left")
    history.close()
    violations = check(history.entries, evidence, references)
    missed = {} if size.only else phases.missed(history.entries)
    return Verdict(history, evidence, violations, missed, green, time.monotonic() - began)


def prove(system: System, references: dict[str, Outcome], build: str, seed: int) -> list[Violation]:
    """Break the workers of a system, and check that it shows."""
    breaking.install(system, build)
    return breaking.prove(system, references, build, seed)


def run_broken(builds: tuple[str, ...], seed: int) -> int:
    """Nothing but broken builds, each in a system of its own; how many were green."""
    green = 0
    for build in builds:
        history = History()
        with short_home() as home, running(home, history, workers=2, apis=1, broken=build, hurt=False) as system:
            green += not breaking.prove(system, make_references(system, seed), build, seed)
    return green


def keep_logs(home: Path, size: Size) -> None:
    """Keep what the processes wrote beside the history, where one is kept."""
    if size.history is not None:
        with size.history.with_suffix(".log").open("wb") as file:
            for log in sorted((home / "logs").iterdir()):
                file.write(b"".join(f"{log.stem}: ".encode() + line for line in log.open("rb")))


def make_references(system: System, seed: int) -> dict[str, Outcome]:
    """Run each recipe once, undisturbed."""
    api = Api(system.urls, system.token, system.history, seed)
    numbers = {}
    for recipe in RECIPES:
        number = api.submit(f"reference-{recipe}", recipe, threading.Event())
        assert number is not None, f"the API refused {recipe}: {system.history.of('refused')}"
        numbers[recipe] = number
    api.close()
    watcher = Nemesis(system, seed)
    wait_for(lambda: watcher.unfinished() == 0, REFERENCE_SECONDS, "the undisturbed runs")
    with system.sessions() as session:
        for recipe, number in numbers.items():
            job = session.get_one(Job, number)
            made = session.scalar(select(func.count()).where(Checkpoint.job_number == number)) or 0
            assert made >= LEAST_CHECKPOINTS, f"{recipe} made only {made} checkpoints"
            assert job.state == State.SUCCEEDED, f"{recipe}, undisturbed, {job.state}: {job.failure}"
        return {recipe: outcome_of(session, number) for recipe, number in numbers.items()}


def disturb(system: System, size: Size) -> None:
    """Let clients submit and the nemesis work, until the schedule is done and every phase was hit often enough."""
    clients = Clients(
        system.urls, system.token, system.sessions, system.history, seed=size.seed, jobs=size.jobs, backlog=BACKLOG
    )
    nemesis = Nemesis(system, size.seed)
    clients.start()
    try:
        follow(nemesis, size)
        nemesis.settle()
        clients.finish()
        nemesis.wait_until(lambda: not clients.busy and nemesis.unfinished() == 0, LAST_SECONDS + size.jobs)
        nemesis.settle()
    finally:
        clients.stop()


def follow(nemesis: Nemesis, size: Size) -> None:
    """Inject the faults of the schedule, and between them aim at the phases that were hit too seldom."""
    impossible = catalogue.impossible(nemesis.system)
    for name, why in impossible.items():
        nemesis.history.note("skipped", name=name, why=why)
    possible = [name for name in size.only or catalogue.FAULTS if name not in impossible]
    planned = schedule.plan(size.seed, possible, size.faults, 0.1)
    until = time.monotonic() + size.seconds
    for number, one in enumerate(planned):
        if time.monotonic() > until:
            break
        if not size.only:
            aim(nemesis, (number + 1) / len(planned))
        inject(nemesis, one)
    until = time.monotonic() + MORE * size.seconds
    while not size.only and phases.missed(nemesis.history.entries) and time.monotonic() < until:
        aim(nemesis, 1.0)


def inject(nemesis: Nemesis, one: schedule.Planned) -> None:
    """Inject one fault."""
    nemesis.wait(one.pause_seconds)
    began = nemesis.history.now
    try:
        done = catalogue.FAULTS[one.fault].inject(nemesis, one)
    except SQLAlchemyError:
        done = False  # what was done before, or a machine that is busy, keeps us from the database
    took = round(nemesis.history.now - began, 2)
    nemesis.history.note("fault" if done else "nothing", name=one.fault, took=took, seed=one.seed)


def aim(nemesis: Nemesis, share: float) -> None:
    """Strike in the phases that are behind their share of the hits."""
    found = phases.count(nemesis.history.entries)
    behind = {phase: phases.LEAST - hits for phase, hits in found.items() if hits < share * phases.LEAST}
    if behind:
        with suppress(SQLAlchemyError):  # on a machine that is busy our own look at the database can fail
            strikes.volley(nemesis, behind)


def conclude(system: System) -> Evidence:
    """Wait until counters are settled, and read everything."""
    with system.sessions() as session:
        return collect(session)


def note_leftovers(home: Path, history: History) -> None:
    """Note every process that belongs to this run and does not go away, now that all was stopped."""
    until = time.monotonic() + STARTING_SECONDS
    while (found := leftovers(home)) and time.monotonic() < until:
        time.sleep(0.1)
    for pid, command in found.items():
        history.note("left", pid=pid, command=command)


def leftovers(home: Path) -> dict[int, str]:
    """The processes that have anything to do with a folder, and their commands."""
    found = {}
    for process in psutil.process_iter():
        try:
            about = " ".join(process.cmdline()) + process.cwd() + "".join(process.environ().values())
            if str(home) in about and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())[:200]
        except psutil.Error:
            continue
    return found


def tell(verdict: Verdict) -> None:
    """Print the report and its closing line."""
    entries = verdict.history.entries
    say("faults injected")
    for line in report.fault_table(entries, catalogue.numbers()):
        say(line)
    say(f"  {catalogue.STRIKES}")
    say("attempts killed by phase")
    for line in report.phase_table(entries):
        say(line)
    say(report.jobs_line(verdict.evidence))
    say(report.submit_line(entries))
    for line in report.verdicts(verdict.violations, verdict.missed):
        say(line)
    jobs = len(verdict.evidence.jobs)
    broken = len({violation.job for violation in verdict.violations if violation.job is not None})
    general = sum(violation.job is None for violation in verdict.violations) + len(verdict.missed) + len(verdict.green)
    skipped = len(verdict.history.of("skipped"))
    say(f"{jobs - broken} passed, {broken + general} failed, {skipped} skipped in {verdict.seconds:.0f} s")
