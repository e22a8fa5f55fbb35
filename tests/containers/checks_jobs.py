"""A job's way through the containers, and what Flower shows of it."""

import httpx

from tests.containers.installation import Installation
from tests.containers.jobs import SECONDS, SMALL
from tests.support.waiting import wait_for


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

    found = wait_for(shown, SECONDS, "the job in Flower")
    assert "user=admin" in found[0]["kwargs"]


CHECKS = (trained, seen_by_flower)
