"""Kills that are aimed: an attempt is made to wait in a phase, and killed there."""

import signal
import time
from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.jobs.models import Worker
from tests.faults.nemesis import Nemesis, fork_server_of
from tests.faults.points import Waiting
from tests.faults.system import ATTEMPTS
from tests.support.signals import signal_process
from tests.support.workers import state_letter

GATHER_SECONDS = 8.0  # for attempts to come by
LINGER_SECONDS = 1.2  # without anybody new
ENDED_SECONDS = 15.0
BY_WORKER = {  # place -> phase; a thread of the worker waits there
    "placed": "placed",
    "claimed": "claimed",
    "row": "between bytes and row",
    "result": "result before commit",
}
BY_TRAINER = {"first": "before the first checkpoint", "write": "inside a write", "evaluate": "evaluating"}
PHASE_OF = BY_WORKER | BY_TRAINER | {"draining": "draining"}
DRAINS = 0.5  # of the volleys hit a worker that was told to stop, while that phase needs it
BY_SERVER = 0.1  # of the trainers die with their fork server
PAIR = 2  # places that only a worker's death can hit, at once
SPARE = 1  # more than is needed are let into a place: some of them may get away


def volley(nemesis: Nemesis, needed: dict[str, int]) -> int:
    """Kill attempts in the phases that need so many hits more; how many were killed."""
    points = [point for point, phase in PHASE_OF.items() if phase in needed]
    if "draining" in points and (points == ["draining"] or nemesis.dice.random() < DRAINS):
        return strike(nemesis, {"draining": needed["draining"] + SPARE})
    # Each death of a worker costs seconds until it is back: few places at a time, so that one death hits many.
    by_worker = sorted((point for point in points if point in BY_WORKER), key=lambda one: -needed[PHASE_OF[one]])
    limits = {point: needed[PHASE_OF[point]] + SPARE for point in by_worker[:PAIR]}
    by_trainer = [point for point in points if point in BY_TRAINER]
    room = max(1, ATTEMPTS // max(1, len(by_trainer)))  # the first place must not take all
    return strike(nemesis, limits | {point: min(needed[PHASE_OF[point]] + SPARE, room) for point in by_trainer})


def strike(nemesis: Nemesis, limits: dict[str, int]) -> int:
    """Kill as many attempts at these places as come by, up to the limit of each; how many."""
    points, fresh = nemesis.system.points, nemesis.fresh_jobs()
    for point, limit in limits.items():
        points.arm(point, None if point in ("placed", "draining") else fresh, limit)
    try:
        if "draining" in limits and not _drain_one(nemesis):
            return 0
        waiting = gather(nemesis, limits)
        hits = _kill_worker(nemesis, waiting)
        return hits + sum(_kill_trainer(nemesis, one) for one in waiting if one.point in BY_TRAINER)
    finally:
        for point in limits:
            points.disarm(point)
        if "draining" in limits:
            _let_back(nemesis)


def gather(nemesis: Nemesis, limits: dict[str, int]) -> list[Waiting]:
    """Wait until all places are full, or nobody comes any more; who waits."""
    until = nemesis.history.now + GATHER_SECONDS

    def here() -> list[Waiting]:
        return [
            one for point in limits for one in nemesis.system.points.waiting(point) if state_letter(one.pid) in "RSD"
        ]

    count = 0

    def more() -> bool:
        return len(here()) > count

    while nemesis.history.now < until:
        if not nemesis.wait_until(more, LINGER_SECONDS if count else GATHER_SECONDS):
            break
        if (count := len(here())) >= sum(limits.values()):
            break
    return here()


def _drain_one(nemesis: Nemesis) -> bool:
    """Tell the busiest worker to stop; whether there is one."""
    busy = [run.worker_id for run in nemesis.running()]
    with nemesis.system.sessions() as session:
        names = _names(session, busy)
    found = sorted(nemesis.workers(), key=lambda member: -names.count(member.name))
    if not found or found[0].child.pid is None or found[0].name not in names:
        return False
    nemesis.system.expect_down(found[0], 60.0)  # until it is killed, at the latest
    signal_process(found[0].child.pid, signal.SIGTERM)
    return True


def _let_back(nemesis: Nemesis) -> None:
    """Let a worker come back that was told to stop, was not killed, and so ends by itself."""
    for member in nemesis.system.workers:
        if member.child.alive and member.back_at is not None:
            member.back_at = time.monotonic()


def _names(session: Session, workers: list[int]) -> list[str]:
    known = dict(session.execute(select(Worker.id, Worker.name)).tuples().all())
    return [known[one] for one in workers]


def _kill_worker(nemesis: Nemesis, waiting: list[Waiting]) -> int:
    """Kill the worker in which most wait that only its death can hit; all who wait in it are hit.

    One that runs a job in danger is spared. The other workers stay, so that work goes on.
    """
    home = {one: member for one in waiting if (member := nemesis.worker_of(one.pid)) is not None}
    counts = Counter(member.name for one, member in home.items() if one.point not in BY_TRAINER)
    for name, _ in counts.most_common():
        mine = [one for one, member in home.items() if member.name == name]
        member = home[mine[0]]
        if not nemesis.spared(member):
            nemesis.kill_worker(member)
            return sum(_hit(nemesis, PHASE_OF[one.point], one, name) for one in mine)
    return 0


def _kill_trainer(nemesis: Nemesis, one: Waiting) -> int:
    """Kill a trainer that still waits, now and then by the death of its fork server."""
    member = nemesis.worker_of(one.pid)
    if member is None or state_letter(one.pid) not in "RSD":
        return 0
    victim, server = "trainer", fork_server_of(member)
    if server is not None and nemesis.dice.random() < BY_SERVER and not nemesis.spared(member):
        victim = f"fork server of {member.name}"
        signal_process(server, signal.SIGKILL)
    else:
        signal_process(one.pid, signal.SIGKILL)
    return _hit(nemesis, PHASE_OF[one.point], one, victim)


def _hit(nemesis: Nemesis, phase: str, one: Waiting, victim: str) -> int:
    nemesis.history.note("hit", phase=phase, job=one.job, attempt=one.attempt, victim=victim)
    return 1


def zombie(nemesis: Nemesis, point: str) -> bool:
    """Freeze a worker just before it writes, and wake it when its attempt was taken away: it must write nothing.

    Returns whether there was one.
    """
    points = nemesis.system.points
    points.arm(point, nemesis.fresh_jobs(), 1)
    waiting = gather(nemesis, {point: 1})
    member = nemesis.worker_of(waiting[0].pid) if waiting else None
    if not waiting or member is None or member.child.pid is None:
        points.disarm(point)
        return False
    pid, attempt = member.child.pid, waiting[0].attempt
    nemesis.paused.add(member.name)
    signal_process(pid, signal.SIGSTOP)
    taken = nemesis.wait_until(lambda: nemesis.state_of(attempt) == "ended", ENDED_SECONDS)
    points.disarm(point)
    signal_process(pid, signal.SIGCONT)
    nemesis.paused.discard(member.name)
    return taken
