"""What PyTorch programs do every day works inside the confinement; what cannot work says why."""

import shutil
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from stoker.jobs.lifecycle import State
from stoker.stack.postgres import Postgres
from tests.support.own_code import submit_script
from tests.support.workers import Stage, stage

EVERY_DAY = """
import getpass, multiprocessing, os, queue, tempfile
import torch
from torch.utils.data import DataLoader, TensorDataset

def square(number):
    return number * number

def child(lock, results, value, event):
    event.wait(30)
    with lock:
        value.value += 1
        results.put((os.getpid(), torch.ones(3)))

def main():
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            assert pool.map(square, range(20)) == [n * n for n in range(20)], method
        lock, results = context.RLock(), context.Queue(5)
        value, event = context.Value("i", 0), context.Event()
        children = [context.Process(target=child, args=(lock, results, value, event)) for _ in range(2)]
        for one in children:
            one.start()
        event.set()
        assert sum(float(results.get(timeout=60)[1].sum()) for _ in children) == 6, method
        for one in children:
            one.join(60)
            assert one.exitcode == 0, method
        assert value.value == 2, method
        try:
            results.get(timeout=0.05)
            raise SystemExit("an empty queue gave something")
        except queue.Empty:
            pass
    data = TensorDataset(torch.arange(40.0).reshape(20, 2), torch.arange(20))
    seen = [int(label) for _, labels in DataLoader(data, batch_size=3, num_workers=2) for label in labels]
    assert seen == list(range(20)), seen
    for refused in (multiprocessing.Manager, multiprocessing.get_context("forkserver").Process(target=square).start,
                    torch.ones(2).share_memory_):
        try:
            refused()
            raise SystemExit(f"{refused} worked")
        except RuntimeError as error:
            assert "which jobs do not have" in str(error), error
    assert getpass.getuser() == "stoker"
    assert os.access(tempfile.mkdtemp(), os.R_OK | os.W_OK | os.X_OK)  # what compilers and matplotlib ask first
    print("all of it")

if __name__ == "__main__":
    main()
"""

COMPILED = """
import os, pathlib
import matplotlib.pyplot as plt
import torch

@torch.compile
def one(angles):
    return torch.sin(angles) ** 2 + torch.cos(angles) ** 2

angles = torch.linspace(0, 1, 100)
assert torch.allclose(one(angles), torch.ones(100))
assert list(pathlib.Path(os.environ["TMPDIR"]).rglob("*.so")), "it was not compiled"
plt.plot(angles, one(angles))
plt.savefig(os.environ["STOKER_OUTPUT"] + "/one.png")
print("compiled and drawn")
"""


@pytest.fixture(scope="module")
def own(postgres: Postgres, template_database: str) -> Iterator[Stage]:
    """A stage with one worker."""
    with stage(postgres, template_database) as made:
        made.started("own", secret_key=Fernet.generate_key().decode())
        yield made


def test_loaders_pools_queues_and_locks_work_and_managers_say_why_they_do_not(own: Stage) -> None:
    number = submit_script(own, EVERY_DAY, resources={"cpus": 1, "memory": 3 * 10**9})
    job = own.wait_final(number, 110)
    assert job.state == State.SUCCEEDED, own.printed(number)
    assert own.printed(number).strip().endswith("all of it")


@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles with a compiler: apt-get install -y g++")
def test_torch_compiles_and_matplotlib_draws(own: Stage) -> None:
    number = submit_script(own, COMPILED, resources={"cpus": 2, "memory": 3 * 10**9})
    job = own.wait_final(number, 300)
    assert job.state == State.SUCCEEDED, own.printed(number)
    assert own.printed(number).strip().endswith("compiled and drawn")
