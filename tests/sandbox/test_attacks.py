"""No attack succeeds from inside a job, of whatever kind and under whatever user; unconfined, they do."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.workers import processes, sandbox
from stoker.workers.bounds import Bounds
from stoker.workers.orders import Order
from stoker.workers.sandbox import Confinement
from stoker.workers.trainers import ForkServer
from tests.sandbox import attacks
from tests.sandbox.attack import ATTACKS
from tests.support.waiting import wait_for
from tests.support.workers import ROOT

COMMAND = (sys.executable, "-m", "tests.sandbox.attackers")
NOBODY = 65534
HARMLESS = (  # where nothing stops them: they are tried unconfined, to see that they are attacks
    *("read_the_environment_of_the_worker", "read_the_memory_of_the_worker", "list_the_descriptors_of_the_worker"),
    *("read_a_secret", "read_a_secret_through_a_link", "overwrite_the_file_of_another_job", "list_all_processes"),
    *("open_the_file_of_another_job_to_all", "hold_the_lock_of_the_cache", "signal_the_worker", "signal_a_neighbour"),
    *(
        "let_its_orphans_out_of_the_job",
        "read_the_memory_of_a_neighbour",
        "limit_the_worker",
        "slow_the_worker_down",
        "bind_the_worker_to_a_processor",
    ),
    *("reach_the_broker", "make_a_datagram_socket", "reach_postgresql_by_its_path", "reach_redis_by_its_path"),
    *(
        "reach_any_socket_by_its_path",
        "reach_an_abstract_socket",
        "send_a_datagram_to_a_path",
        "write_a_file_that_is_too_long",
    ),
)
INTERNET = {"reach_the_broker", "make_a_datagram_socket", "ask_the_kernel_for_its_addresses"}


def in_a_child(work: Callable[[], object]) -> Any:
    """What a function returns in a forked child that ends afterwards."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            into = os.dup2(into, 3)  # the work may close those with high numbers
            try:
                result: object = work()
            except BaseException as error:
                result = repr(error)
            os.write(into, pickle.dumps(result))
        finally:
            os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as file:
        found = pickle.load(file)
    os.waitpid(pid, 0)
    return found


def confined(folder: Path, targets: dict[str, Any], user: int, *, network: bool = False) -> Any:
    """The attacks that succeed from a confined child of this process, as this user."""
    confinement = Bounds("open").confinement(folder, network=network, memory_bytes=10**9)
    assert confinement is not None

    def work() -> object:
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        os.chdir(folder)
        processes.close_from(3 + 64)
        sandbox.confine(Confinement.from_document(confinement))
        return attacks.succeeded(targets, [name for name in ATTACKS if "in_its_own" not in name])

    return in_a_child(work)  # which has inherited all that this process knows


@pytest.fixture
def scratch(home: Path) -> Path:
    """The folder of the job that attacks."""
    folder = home / "scratch" / "attacker"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    return folder


@pytest.mark.parametrize("kind", ["forked", "exec"])
def test_no_attack_succeeds_from_a_job(kind: str, targets: dict[str, Any], scratch: Path, canary: str) -> None:
    server = ForkServer({"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "STOKER_TOKEN": canary}, COMMAND)
    server.start()
    try:
        log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        order = Order(
            id="attack",
            task={"kind": kind, "targets": targets, "sources": attacks.sources()},
            environment={"HOME": str(scratch), "TMPDIR": str(scratch)},
            scratch=str(scratch),
            title="attack",
            deadline=processes.boottime() + 60,
            confinement=Bounds("open").confinement(scratch, memory_bytes=10**9),
        )
        trainer = server.spawn(order, log)
        os.close(log)
        wait_for(lambda: trainer.wait(0.05) or trainer.gone, 60, "the end of the attacks")
        trainer.close()
    finally:
        server.close()
    assert ((scratch / "log").read_text(), trainer.status) == ("[]", 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_attack_succeeds_as_an_ordinary_user(targets: dict[str, Any], scratch: Path) -> None:
    found = confined(scratch, targets, NOBODY)
    assert found == []


def test_with_a_network_only_the_internet_is_reached(targets: dict[str, Any], scratch: Path) -> None:
    assert set(confined(scratch, targets, 0, network=True)) == INTERNET


def test_unconfined_these_attacks_succeed(targets: dict[str, Any], scratch: Path) -> None:
    def work() -> object:
        os.chdir(scratch)
        return attacks.succeeded(targets, HARMLESS)

    assert in_a_child(work) == list(HARMLESS)
