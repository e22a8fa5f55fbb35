"""Three builds that are broken on purpose: the checker must be red for each, or it proves nothing."""

import time
from collections.abc import Callable

from sqlalchemy import func, select

from stoker.jobs.models import Job
from tests.faults import faults_content, strikes
from tests.faults.checker import Violation, check
from tests.faults.clients import Clients
from tests.faults.collecting import collect
from tests.faults.evidence import Outcome
from tests.faults.history import History
from tests.faults.nemesis import Nemesis
from tests.faults.report import say
from tests.faults.schedule import Planned
from tests.faults.system import System

JOBS = 8
HARM_SECONDS = 20.0  # for somebody to come by whom it can be done to
END_SECONDS = 6.0  # for jobs to end; a broken build may leave some that never do
ENOUGH = Planned("", 0, 1.0, 0.0)
Harm = Callable[[Nemesis], None]


def hurt_fence(nemesis: Nemesis) -> None:
    """Wake workers whose attempts were taken away, about to write."""
    nemesis.wait_until(lambda: strikes.zombie(nemesis, "row"), HARM_SECONDS)
    nemesis.wait_until(lambda: strikes.zombie(nemesis, "result"), HARM_SECONDS)


def hurt_checkpoint(nemesis: Nemesis) -> None:
    """Kill between the row and its bytes."""
    nemesis.wait_until(lambda: strikes.strike(nemesis, {"row": 3}) > 0, HARM_SECONDS)


def hurt_claim(nemesis: Nemesis) -> None:
    """Send every message again while its attempt runs."""
    for _ in range(3):
        nemesis.wait_until(lambda: len(nemesis.running()) > 1, 3.0)
        faults_content.duplicate_messages(nemesis, ENOUGH, copies=8)
        nemesis.wait(0.5)


HARM: dict[str, Harm] = {"fence": hurt_fence, "checkpoint": hurt_checkpoint, "claim": hurt_claim}
PROOF = {  # the promises of which at least one must be found broken; others may be by the way, or by jobs cut short
    "fence": {"fence", "one_result", "one_final_state", "attempts_in_order"},
    "checkpoint": {"checkpoints_whole"},
    "claim": {"one_trainer", "metrics_rise", "exact"},
}


def install(system: System, build: str) -> None:
    """Let one worker, of a broken build, be the only one from now on."""
    for member in system.workers:
        member.child.kill()
    system.workers = system.workers[:1]
    only = system.workers[0].child
    if "--broken" in only.command:
        only.command = only.command[: only.command.index("--broken")]
    only.command += ["--broken", build]
    only.start()
    system.wait_whole()


def prove(system: System, references: dict[str, Outcome], build: str, seed: int) -> list[Violation]:
    """Hurt a broken build where it is broken; the violations that prove it."""
    began = time.monotonic()
    system.history = History()
    with system.sessions() as session:
        last = session.scalar(select(func.max(Job.number))) or 0
    clients = Clients(
        system.urls, system.token, system.sessions, system.history, seed=seed, jobs=JOBS, backlog=JOBS, mark=build
    )
    clients.start()
    try:
        nemesis = Nemesis(system, seed)
        HARM[build](nemesis)
        clients.finish()
        nemesis.wait_until(lambda: not clients.busy and nemesis.unfinished() == 0, END_SECONDS)
        nemesis.settle()
    finally:
        clients.stop()
    with system.sessions() as session:
        evidence = collect(session, after=last)
    found = check(system.history.entries, evidence, references)
    proof = [violation for violation in found if violation.promise in PROOF[build]]
    tell(build, proof, time.monotonic() - began)
    return proof


def tell(build: str, proof: list[Violation], seconds: float) -> None:
    """Print what was found."""
    verdict = f"red, as it must be: {proof[0]}" if proof else "GREEN: the checker has missed it"
    say(f"build without its guard of the {build}: {verdict} ({seconds:.0f} s)")
