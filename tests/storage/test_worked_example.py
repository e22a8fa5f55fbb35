"""The worked example of docs/scheduling.md, run against the real planner and database: each sentence it prints."""

import dataclasses
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select, update

from stoker.client.forecasts import behind_whom
from stoker.jobs import quotas
from stoker.jobs.explaining import Why, why
from stoker.jobs.fleet import OfferedDevice
from stoker.jobs.models import Attempt, Job, Team, User
from stoker.jobs.prospects import Foresight
from stoker.jobs.spec import parse_spec
from stoker.jobs.submissions import add_job
from tests.support.queue import Queue, spec_document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scheduling.md"
GPUS = tuple(OfferedDevice(f"GPU-{place}", place, "H100", 80 * 10**9) for place in range(4))
ONE = {"device": "gpu", "gpus": 1, "cpus": 1, "memory": 10**8}


class Lab:
    """Teams vision (ada) and nlp (eve) on one worker of four GPUs; vision is guaranteed two of them."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.foresight = queue, Foresight()
        self.incarnation = queue.worker("gpu-01", cpus=32, devices=GPUS)
        with queue.factory() as session:
            team = Team(name="nlp")
            session.add(team)
            session.flush()
            session.add(User(name="eve", team_id=team.id))
            quotas.set_quota(session, "vision", "default", {"gpus": 2}, actor="admin")
            session.commit()

    def submit(self, user: str, **fields: object) -> int:
        """A user's job for one GPU."""
        with self.queue.factory() as session:
            owner = session.scalars(select(User).where(User.name == user)).one()
            job, _ = add_job(session, parse_spec(spec_document(resources=ONE, **fields)), owner)
            session.commit()
            return job.number

    def work(self) -> None:
        """A pass of the dispatcher; what it placed is claimed."""
        for outgoing in self.queue.dispatch():
            self.queue.claim(outgoing.attempt_id, self.incarnation)

    def ran(self, minutes: dict[int, int]) -> None:
        """Let these jobs have run so long."""
        with self.queue.factory() as session:
            for number, since in minutes.items():
                began = func.now() - timedelta(minutes=since)
                job = update(Attempt).where(Attempt.job_number == number)
                session.execute(job.values(claimed_at=began, placed_at=began))
            session.commit()

    def why(self, number: int) -> Why:
        """What `stoker why` is told."""
        with self.queue.factory() as session:
            return why(session, session.get_one(Job, number), self.foresight)

    def leaves(self) -> list[int]:
        """The jobs that were asked to make room."""
        with self.queue.factory() as session:
            asked = select(Attempt.job_number).where(Attempt.preempt_requested_at.is_not(None))
            return sorted(session.scalars(asked))


def printed(told: Why) -> str:
    """The first line of `stoker why`."""
    place = f"#{told.position} in queue: " if told.position else ""
    return f"{place}{told.sentence} ({told.code})"


def test_two_teams_a_flood_and_an_urgent_job(queue: Queue) -> None:
    page = PAGE.read_text()
    lab = Lab(queue)
    flood = [lab.submit("eve") for _ in range(12)]
    lab.work()
    lab.ran(minutes={number: 20 - number for number in flood[:4]})
    assert [queue.job(number).state for number in flood[:4]] == ["running"] * 4  # all four are borrowed
    first = lab.why(flood[4])
    assert printed(first) in page
    last = lab.why(flood[11])
    assert f"#{last.position} in queue: {last.sentence} ({last.code})" in page
    assert f"would help: {last.helps[0]}" in page
    ours = lab.submit("ada")
    lab.work()
    assert lab.leaves() == [flood[3]]  # it has run for the shortest time: least is lost with it
    assert printed(lab.why(ours)) in page
    behind = lab.why(flood[4])
    assert behind.position == 2
    assert f"behind {behind_whom(dataclasses.asdict(behind))}" in page
    urgent = lab.submit("eve", priority="urgent")
    lab.work()
    assert printed(lab.why(urgent)) in page
    assert lab.leaves() == [flood[2], flood[3]]
