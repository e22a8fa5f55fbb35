"""Faults of PostgreSQL, Redis and the network on the way to them."""

import signal
from collections.abc import Callable

from sqlalchemy import text

from stoker.workers import processes
from tests.faults.nemesis import Nemesis
from tests.faults.schedule import Planned
from tests.faults.system import LEASE_SECONDS
from tests.support.signals import signal_process

AWAY_SECONDS = LEASE_SECONDS + 1.0  # longer than a lease: trainers must freeze


def kill_postgres(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGKILL the postmaster; recover after a moment."""
    nemesis.system.postgres.child.kill()
    nemesis.wait(1.0 * planned.seconds)
    nemesis.system.postgres.restart()
    return True


def freeze_postgres(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP all of its processes, for longer than a lease."""
    pid = nemesis.system.postgres.child.pid
    if pid is None:
        return False
    processes.signal_tree(pid, signal.SIGSTOP)
    nemesis.wait(AWAY_SECONDS * planned.seconds)
    processes.signal_tree(pid, signal.SIGCONT)
    return True


def lock_tables(nemesis: Nemesis, planned: Planned) -> bool:
    """Hold the tables on which every renewal, claim and batch depends."""
    connection = nemesis.system.postgres.connect()
    table = nemesis.dice.choice(["leases", "attempts", "jobs", "workers"])
    with connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        nemesis.wait(1.5 * planned.seconds)
    return True


def slow_database(nemesis: Nemesis, planned: Planned) -> bool:
    """Let each packet between one worker and the database take 0.1 s."""
    door = nemesis.system.doors["postgres"]
    door.delay_seconds = 0.1
    nemesis.later(3.0 * planned.seconds, lambda: setattr(door, "delay_seconds", 0.0))
    return True


def silence_database(nemesis: Nemesis, planned: Planned) -> bool:
    """Let everything between one worker and the database vanish, for longer than a lease."""
    return _silence(nemesis, planned, "postgres")


def silence_broker(nemesis: Nemesis, planned: Planned) -> bool:
    """Let everything between one worker and Redis vanish."""
    return _silence(nemesis, planned, "redis")


def _silence(nemesis: Nemesis, planned: Planned, name: str) -> bool:
    door = nemesis.system.doors[name]
    door.silent = True
    nemesis.later(1.5 * AWAY_SECONDS * planned.seconds, lambda: setattr(door, "silent", False))
    return True


def pull_cable(nemesis: Nemesis, planned: Planned) -> bool:
    """Take one worker's network away altogether, for longer than a lease."""
    network = nemesis.system.network
    network.pull()
    nemesis.later(1.5 * AWAY_SECONDS * planned.seconds, network.plug)
    return True


def kill_redis(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGKILL Redis; it comes back empty."""
    nemesis.system.redis.child.kill()
    nemesis.wait(0.7 * planned.seconds)
    nemesis.system.redis.restart()
    return True


def freeze_redis(nemesis: Nemesis, planned: Planned) -> bool:
    """SIGSTOP Redis: it accepts connections and answers nothing."""
    pid = nemesis.system.redis.child.pid
    if pid is None:
        return False
    signal_process(pid, signal.SIGSTOP)
    nemesis.wait(2.0 * planned.seconds)
    signal_process(pid, signal.SIGCONT)
    return True


def full_redis(nemesis: Nemesis, planned: Planned) -> bool:
    """Start Redis anew without room for anything: it refuses each write."""
    return _with_config(nemesis, planned, "maxmemory 1")


def failing_redis(nemesis: Nemesis, planned: Planned) -> bool:
    """Start Redis anew so that it cannot save, and refuses each write (MISCONF)."""
    folder = nemesis.system.redis.folder / "blocked"
    try:
        return _with_config(nemesis, planned, "save 1 1\ndbfilename blocked", then=folder.mkdir)
    finally:
        folder.rmdir()  # a file could not take the place of a folder


def _with_config(nemesis: Nemesis, planned: Planned, lines: str, then: Callable[[], None] = lambda: None) -> bool:
    redis = nemesis.system.redis
    config = redis.folder / "redis.conf"
    good = config.read_text()
    try:
        with config.open("a") as file:
            file.write(lines + "\n")
        redis.child.kill()
        redis.restart()
        then()
        nemesis.wait(2.0 * planned.seconds)
    finally:
        with config.open("w") as file:  # the same file: it belongs to the service account
            file.write(good)
        redis.child.kill()
        redis.restart()
    return True


def database_clock_forward(nemesis: Nemesis, _: Planned) -> bool:
    """Move the clock of the database's host by an hour: no lease may expire by that."""
    clock = nemesis.system.database_clock
    if clock is None:
        return False
    before = _losses(nemesis)
    clock.jump(3600)
    nemesis.wait(LEASE_SECONDS)
    if (lost := _losses(nemesis) - before) > 0:
        nemesis.history.note("answer", what="losses after the clock of the database", status=0, ms=0.0, lost=lost)
    return True


def _losses(nemesis: Nemesis) -> int:
    with nemesis.system.sessions() as session:
        return int(session.scalar(text("SELECT count(*) FROM attempts WHERE outcome = 'lost'")) or 0)
