"""A job's way through the containers, own code too, and what Flower shows of it."""

from tempfile import TemporaryDirectory

import httpx

from tests.containers.installation import ROOT, WORKER_USER, Installation
from tests.containers.jobs import OWN_CODE, SCRIPT, SECONDS, SMALL, wait


def trained(stack: Installation) -> None:
    """A job trains end to end; its accuracy stands in PostgreSQL, and a count over its predictions gives the same."""
    with stack.client() as client:
        job = client.train(**SMALL | {"epochs": 4, "name": "first"})
        accuracy = job.result(timeout=SECONDS).accuracy
        right = [one.label == one.predicted for one in job.predictions()]
    stored = stack.sql(f"SELECT accuracy FROM results WHERE job_number = {job.number}")
    assert float(stored) == accuracy == sum(right) / len(right)
    assert accuracy > 0.5


def seen_by_flower(stack: Installation) -> None:
    """Flower shows the job to whoever has the password, by its name, number and owner, as succeeded."""
    stack.wait_health(stack.containers("flower")[0], "healthy")
    user, _, password = stack.secrets()["flower_auth"].partition(":")
    tasks = f"http://127.0.0.1:{stack.ports[1]}/api/tasks?limit=100"

    def shown() -> list[dict[str, str]]:
        listed = httpx.get(tasks, auth=(user, password), timeout=30).json().values()
        return [task for task in listed if "first · job" in task["args"] and task["state"] == "SUCCESS"]

    found = wait(shown, "the job in Flower")
    assert "user=admin" in found[0]["kwargs"]


def own_code(stack: Installation) -> None:
    """A script with torch runs end to end: its code is sent, its log read, its file pulled."""
    with stack.client() as client, TemporaryDirectory() as folder:
        command = ["python", "train.py", "--epochs", "5"]
        job = client.run(command, code=ROOT / "examples/plain", name="own", **SCRIPT)
        assert job.wait(timeout=SECONDS) == "succeeded", list(job.logs(tail=20))
        assert any("accuracy on 359 test images: 9" in line for line in job.logs())
        assert [path.name for path in job.pull(folder)] == ["digits.pt"]


def confined(stack: Installation) -> None:
    """A script reaches no secret, no service, no neighbour; the same lines reach all of them outside of a job."""
    with stack.client() as client:
        job = client.run(["python", "probe.py"], code=OWN_CODE, name="probe", **SCRIPT)
        result = job.result(timeout=SECONDS)
        tried = result.document["tried"]
        assert (result.accuracy, len(tried), result.document["user"]) == (1.0, 8, int(WORKER_USER)), list(job.logs())
    free = ("docker", "exec", "-i", "-e", "STOKER_OUTPUT=/tmp", stack.containers("worker-cpu")[0], "python", "-")
    refused = stack.engine.run(*free, text=(OWN_CODE / "probe.py").read_text()).stdout
    assert refused == "", f"not refused by the confinement: {refused}"


CHECKS = (trained, seen_by_flower, own_code, confined)
