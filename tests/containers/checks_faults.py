"""What becomes of a job when its worker is stopped, killed, frozen, cut off, or has too little memory."""

import signal

from tests.containers.installation import Installation
from tests.containers.jobs import (
    OWN_CODE,
    SCRIPT,
    SECONDS,
    SMALL,
    attempts,
    container_of,
    endless,
    live_workers,
    wait,
    wait_resumed,
    wait_state,
)
from tests.support.signals import signal_all


def second_worker(stack: Installation) -> None:
    """``--scale worker-cpu=2`` gives two workers with names of their own."""
    stack.compose("up", "--detach", "--no-build", "--no-recreate", "--scale", "worker-cpu=2", "worker-cpu")
    for container in stack.containers("worker-cpu"):
        stack.wait_health(container, "healthy", SECONDS)
    with stack.client() as client:
        wait(lambda: len(live_workers(client)) == 2, "both to be live")


def stopped(stack: Installation) -> None:
    """A worker that is stopped writes checkpoints, gives its jobs back, and exits with 0; they go on elsewhere."""
    with stack.client() as client, endless(stack, client) as job:
        worker = container_of(stack, attempts(stack, job.number)[0][0])
        stack.engine.docker("stop", worker)
        assert stack.inspect(worker)["State"]["ExitCode"] == 0
        (first, outcome, _), (second, _, _) = wait_resumed(stack, job)
        assert (outcome, first != second) == ("preempted", True)
        stack.engine.docker("start", worker)
        stack.wait_health(worker, "healthy", SECONDS)


def killed(stack: Installation) -> None:
    """A worker that is killed loses its lease; its job goes on from its checkpoint, and the container starts again."""
    with stack.client() as client, endless(stack, client) as job:
        worker = container_of(stack, attempts(stack, job.number)[0][0])
        before = stack.inspect(worker)["RestartCount"]
        signal_all(_workers_processes(stack, worker), signal.SIGKILL)
        assert wait_resumed(stack, job)[0][1] == "lost"
        wait(lambda: stack.inspect(worker)["RestartCount"] > before, f"{worker} to start again")
        stack.wait_health(worker, "healthy", SECONDS)


def _workers_processes(stack: Installation, container: str) -> list[int]:
    """The worker's own process in a container, by its pid on the host."""
    lines = stack.engine.docker("top", container, "-eo", "pid,args").splitlines()[1:]
    found = [int(line.split()[0]) for line in lines if "-m stoker.workers" in line and "docker-init" not in line]
    assert found, lines
    return found


def gone_for_good(stack: Installation) -> None:
    """When a worker does not come back, its job goes on elsewhere."""
    with stack.client() as client, endless(stack, client) as job:
        worker = container_of(stack, attempts(stack, job.number)[0][0])
        stack.engine.docker("kill", worker)  # the engine then does not start it again
        (first, outcome, _), (second, _, _) = wait_resumed(stack, job)
        assert (outcome, first != second) == ("lost", True)
        stack.engine.docker("start", worker)
        stack.wait_health(worker, "healthy", SECONDS)


def frozen(stack: Installation) -> None:
    """A worker whose processes stand still turns unhealthy, then healthy again; its job has gone on elsewhere."""
    # not `docker pause`: the engine then calls a container unhealthy without having asked it
    with stack.client() as client, endless(stack, client) as job:
        worker = container_of(stack, attempts(stack, job.number)[0][0])
        standing = _stop_all(stack, worker)
        try:
            stack.wait_health(worker, "unhealthy", SECONDS)
            (first, outcome, _), (second, _, _) = wait_resumed(stack, job)
            assert (outcome, first != second) == ("lost", True)
        finally:
            signal_all(standing, signal.SIGCONT)  # the engine has killed a health check that took too long
        stack.wait_health(worker, "healthy", SECONDS)


def _stop_all(stack: Installation, container: str) -> set[int]:
    """Stop every process of a container, those too that were started meanwhile; returns their pids on the host."""
    stopped: set[int] = set()
    while running := stack.pids(container) - stopped:
        signal_all(running, signal.SIGSTOP)
        stopped |= running
    return stopped


def cut_off(stack: Installation) -> None:
    """A worker whose network is gone loses its job to the other, and takes part again once it is back."""
    network = f"{stack.project}_backend"
    with stack.client() as client, endless(stack, client) as job:
        worker = container_of(stack, attempts(stack, job.number)[0][0])
        stack.engine.docker("network", "disconnect", network, worker)
        try:
            (first, outcome, _), (second, _, _) = wait_resumed(stack, job)
            assert (outcome, first != second) == ("lost", True)
        finally:
            stack.engine.docker("network", "connect", network, worker)
        wait(lambda: len(live_workers(client)) == 2, f"{worker} to be back")


def drained(stack: Installation) -> None:
    """A drained worker keeps what it runs and gets nothing new."""
    with stack.client() as client, endless(stack, client) as job:
        busy = attempts(stack, job.number)[0][0]
        client.steer_worker(busy, "drain")
        try:
            other = client.train(**SMALL | {"epochs": 1, "name": "beside a drain"})
            wait_state(other, "succeeded")
            assert attempts(stack, other.number)[0][0] != busy
            assert [outcome for _, outcome, _ in attempts(stack, job.number)] == [""], "what ran was disturbed"
        finally:
            client.steer_worker(busy, "resume")


def out_of_memory(stack: Installation) -> None:
    """A job that takes more memory than its container has fails for that reason, and the worker lives on."""
    with stack.client() as client:
        job = client.run(["python", "hoard.py"], code=OWN_CODE, name="hoard", **SCRIPT)
        wait_state(job, "failed")
        assert stack.sql(f"SELECT failure->>'class' FROM jobs WHERE number = {job.number}") == "host_out_of_memory"
        assert len(live_workers(client)) == 2


CHECKS = (second_worker, stopped, killed, gone_for_good, frozen, cut_off, drained, out_of_memory)
