"""All faults by name: what each is called in the catalogue, how it is injected, and what it needs."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults import faults_content, faults_processes, faults_stores
from tests.faults.nemesis import Nemesis
from tests.faults.network import INSTALL
from tests.faults.schedule import Planned
from tests.faults.system import System

Inject = Callable[[Nemesis, Planned], bool]  # whether there was anything to hurt


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    numbers: str
    inject: Inject


FAULTS: dict[str, Fault] = {
    "kill trainer": Fault("F1 F7", faults_processes.kill_trainer),
    "kill worker": Fault("F2 F38", faults_processes.kill_worker),
    "freeze worker": Fault("F5", faults_processes.freeze_worker),
    "zombie: checkpoint": Fault("F5", faults_processes.zombie_checkpoint),
    "zombie: result": Fault("F5", faults_processes.zombie_result),
    "freeze trainer": Fault("F6", faults_processes.freeze_trainer),
    "kill API": Fault("F8 F9", faults_processes.kill_api),
    "freeze API": Fault("F9 F31", faults_processes.freeze_api),
    "kill Redis": Fault("F10", faults_stores.kill_redis),
    "freeze Redis": Fault("F11", faults_stores.freeze_redis),
    "Redis without memory": Fault("F12", faults_stores.full_redis),
    "Redis cannot save": Fault("F12", faults_stores.failing_redis),
    "kill PostgreSQL": Fault("F13", faults_stores.kill_postgres),
    "freeze PostgreSQL": Fault("F37", faults_stores.freeze_postgres),
    "lock tables": Fault("F15", faults_stores.lock_tables),
    "slow database": Fault("F15", faults_stores.slow_database),
    "silent broker": Fault("F16", faults_stores.silence_broker),
    "silent database": Fault("F17", faults_stores.silence_database),
    "cable pulled": Fault("F16 F17", faults_stores.pull_cable),
    "duplicate messages": Fault("F19", faults_content.duplicate_messages),
    "lost messages": Fault("F20", faults_content.lose_messages),
    "garbage in the queue": Fault("F21", faults_content.send_garbage),
    "disk full": Fault("F22", faults_content.fill_disk),
    "flipped bit": Fault("F24", faults_content.flip_bit),
    "clock shifted": Fault("F27", faults_content.shift_clock),
    "worker told to stop": Fault("F29", faults_processes.stop_worker),
    "kill fork server": Fault("F36", faults_processes.kill_fork_server),
    "freeze fork server": Fault("F36", faults_processes.freeze_fork_server),
    "database clock +1 h": Fault("F39", faults_stores.database_clock_forward),
    "cancel": Fault("user", faults_content.cancel),
    "preempt": Fault("user", faults_content.preempt),
    "drain": Fault("user", faults_content.drain),
}
STRIKES = "F3 F4 F23 F32 are the kills by phase, F31 is that all of this runs with several of each"


def numbers() -> dict[str, str]:
    """The catalogue's numbers of each fault."""
    return {name: fault.numbers for name, fault in FAULTS.items()}


def impossible(system: System) -> dict[str, str]:
    """The faults that cannot be injected on this machine, and what is missing."""
    found: dict[str, str] = {}
    if not system.network.made:
        found["cable pulled"] = f"no network namespace; {INSTALL}"
    if system.database_clock is None:
        for name in ("clock shifted", "database clock +1 h"):
            found[name] = "no C compiler; apt-get install gcc"
    return found
