"""Faults of processes: trainers, workers, fork servers, APIs are killed or frozen."""

import signal
import time
from functools import partial

from tests.faults.nemesis import Nemesis, fork_server_of, trainers_of
from tests.faults.schedule import Planned
from tests.faults.strikes import zombie
from tests.faults.system import LEASE_SECONDS, Member
from tests.support.signals import signal_process

TERM_SECONDS = 10.0 + 1.0  # promised: ten seconds and one step
FROZEN_SECONDS = LEASE_SECONDS + 1.5


def kill_trainer(nemesis: Nemesis, _: Planned) -> bool:
    """SIGKILL one at a random step."""
    fresh = nemesis.fresh_jobs()
    for member in nemesis.workers():
        for job, pid in trainers_of(member):
            if job in fresh:
                signal_process(pid, signal.SIGKILL)
                return True
    return False


def kill_worker(nemesis: Nemesis, _: Planned) -> bool:
    """SIGKILL one at a random moment."""
    for member in nemesis.workers():
        if not nemesis.spared(member):
            nemesis.kill_worker(member)
            return True
    return False


def kill_fork_server(nemesis: Nemesis, _: Planned) -> bool:
    """SIGKILL one, with all its trainers."""
    for member in nemesis.workers():
        server = fork_server_of(member)
        if server is not None and not nemesis.spared(member):
            signal_process(server, signal.SIGKILL)
            return True
    return False


def freeze_worker(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP one for longer than its lease, or for less."""
    for member in nemesis.workers():
        if member.child.pid is not None:
            nemesis.paused.add(member.name)
            _freeze(nemesis, member.child.pid, FROZEN_SECONDS * planned.seconds)
            nemesis.later(FROZEN_SECONDS * planned.seconds, partial(nemesis.paused.discard, member.name))
            return True
    return False


def freeze_trainer(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP one: it makes no progress for a while."""
    for member in nemesis.workers():
        for _, pid in trainers_of(member):
            _freeze(nemesis, pid, 1.5 * planned.seconds)
            return True
    return False


def freeze_fork_server(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP one; what it should start or stop waits."""
    for member in nemesis.workers():
        if (server := fork_server_of(member)) is not None:
            nemesis.paused.add(member.name)  # its worker must not die meanwhile: nobody would be there to clear up
            _freeze(nemesis, server, 1.5 * planned.seconds)
            nemesis.later(1.5 * planned.seconds, partial(nemesis.paused.discard, member.name))
            return True
    return False


def _freeze(nemesis: Nemesis, pid: int, seconds: float) -> None:
    signal_process(pid, signal.SIGSTOP)

    nemesis.later(seconds, lambda: signal_process(pid, signal.SIGCONT))


def zombie_checkpoint(nemesis: Nemesis, _: Planned) -> bool:
    """A worker wakes after its lease, about to write the row of a checkpoint."""
    return zombie(nemesis, "row")


def zombie_result(nemesis: Nemesis, _: Planned) -> bool:
    """A worker wakes after its lease, about to commit a result."""
    return zombie(nemesis, "result")


def stop_worker(nemesis: Nemesis, _: Planned) -> bool:
    """SIGTERM: its jobs are queued again, and it exits 0 in time."""
    for member in nemesis.workers():
        if member.child.pid is not None and member.name in nemesis.system.live():
            _stop(nemesis, member, member.child.pid)
            return True
    return False


def _stop(nemesis: Nemesis, member: Member, pid: int) -> None:
    nemesis.system.expect_down(member, 60.0)
    began = time.monotonic()
    signal_process(pid, signal.SIGTERM)
    gone = nemesis.wait_until(lambda: not member.child.alive, 3 * TERM_SECONDS)
    took = time.monotonic() - began
    if not gone or took > TERM_SECONDS:
        nemesis.history.note("late", what=f"SIGTERM of {member.name}", seconds=took, limit=TERM_SECONDS)
    if gone and member.child.fate() != "exit code 0":
        nemesis.history.note("died", who=f"{member.name}, asked to stop,", fate=member.child.fate())
    nemesis.system.expect_down(member, 0.0)
    if not gone:
        member.child.kill()


def kill_api(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGKILL one while clients submit; the other one, if any, goes on."""
    member = nemesis.dice.choice(nemesis.system.apis)
    if member.child.pid is None or not member.child.alive:
        return False
    nemesis.system.expect_down(member, 1.0 * planned.seconds)
    signal_process(member.child.pid, signal.SIGKILL)
    return True


def freeze_api(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP one, which may hold the lock of the dispatchers."""
    member = nemesis.dice.choice(nemesis.system.apis)
    if member.child.pid is None or not member.child.alive:
        return False
    _freeze(nemesis, member.child.pid, 3.0 * planned.seconds)
    return True
