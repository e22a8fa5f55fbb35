"""Users, workers and dispatchers do what they do to a real database; its promises hold at every step."""

import random
from typing import Any

from sqlalchemy import func, select, update

from stoker.jobs.attempts import Ending
from stoker.jobs.failures import Failure
from stoker.jobs.fleet import OfferedDevice, set_draining
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Allocation, Attempt, Device, Event, Job, Reservation, TeamQuota, Worker
from stoker.jobs.steering import set_held
from stoker.jobs.submissions import cancel
from tests.support.queue import Queue

ACTS = (
    "submit",
    "submit",
    "dispatch",
    "dispatch",
    "dispatch",
    "end",
    "obey",
    "obey",
    "cancel",
    "hold",
    "drain",
    "quota",
)
ENDINGS = (
    Ending(Outcome.SUCCEEDED, result={"accuracy": 0.5}),
    Ending(Outcome.FAILED, failure=Failure("worker_lost", "gone")),
)


class Story:
    """What happens in one run, on the four GPUs of two workers."""

    def __init__(self, queue: Queue, users: list[int]) -> None:
        self.queue, self.users = queue, users
        self.accepted: set[int] = set()
        self.incarnations = {
            name: queue.worker(name, cpus=16, devices=tuple(
                OfferedDevice(f"GPU-{name}-{place}", place, "H100", 80 * 10**9) for place in range(2)
            ))
            for name in ("one", "two")
        }  # fmt: skip

    def running(self) -> list[tuple[Attempt, str]]:
        """What runs, and where."""
        with self.queue.factory() as session:
            rows = session.execute(
                select(Attempt, Worker.name)
                .join(Worker, Worker.id == Attempt.worker_id)
                .where(Attempt.state == "running")
                .order_by(Attempt.job_number)
            )
            return [(attempt, name) for attempt, name in rows]

    def queued(self) -> list[int]:
        """The jobs in the queue."""
        with self.queue.factory() as session:
            return list(session.scalars(select(Job.number).where(Job.state == "queued").order_by(Job.number)))

    def submit(self, chosen: int) -> None:
        """A job for one or two GPUs, of either team."""
        self.queue.user_id = self.users[chosen % len(self.users)]
        wanted = {"device": "gpu", "gpus": 1 + chosen % 3 // 2, "memory": 10**8, "cpus": 1}
        self.accepted.add(self.queue.submit(resources=wanted, priority=("low", "normal", "high")[chosen % 5 % 3]))

    def dispatch(self, _: int) -> None:
        """A pass; what it placed is claimed."""
        for outgoing in self.queue.dispatch():
            self.queue.claim(outgoing.attempt_id, self.incarnations[outgoing.worker])

    def end(self, chosen: int) -> None:
        """A running job ends, well or not."""
        if running := self.running():
            attempt, name = running[chosen % len(running)]
            self.queue.finish(attempt.id, self.incarnations[name], ENDINGS[chosen % 2])
            with self.queue.factory() as session:
                session.execute(update(Job).values(not_before=None))
                session.commit()

    def obey(self, _: int) -> None:
        """Who was asked to make room does; the job that it was for starts, if nothing forbids."""
        asked = [(attempt, name) for attempt, name in self.running() if attempt.preempt_requested_at is not None]
        for attempt, name in asked:
            self.queue.finish(attempt.id, self.incarnations[name], Ending(Outcome.PREEMPTED, ran_seconds=1.0))
        self.dispatch(0)
        with self.queue.factory() as session:
            for attempt, name in asked:
                job = session.get_one(Job, attempt.preempt_for)
                draining = session.scalar(select(Worker.draining).where(Worker.name == name))
                assert job.state != "queued" or job.held or draining

    def cancel(self, chosen: int) -> None:
        """A queued job is cancelled."""
        self._change(chosen, lambda session, number: cancel(session, number, actor="ada"))

    def hold(self, chosen: int) -> None:
        """A queued job is held."""
        self._change(chosen, lambda session, number: set_held(session, number, True, actor="ada"))

    def _change(self, chosen: int, act: Any) -> None:
        if queued := self.queued():
            with self.queue.factory() as session:
                act(session, queued[chosen % len(queued)])
                session.commit()

    def drain(self, chosen: int) -> None:
        """A worker takes nothing new, or takes jobs again."""
        with self.queue.factory() as session:
            set_draining(session, ("one", "two")[chosen % 2], chosen % 4 < 2, actor="ada")
            session.commit()

    def quota(self, chosen: int) -> None:
        """The second team is guaranteed more or less."""
        with self.queue.factory() as session:
            session.execute(update(TeamQuota).values(gpus_milli=1000 * (chosen % 5)))
            session.commit()

    def check(self) -> None:
        """I1, I2, I5, I6, and the reservations of jobs that wait."""
        with self.queue.factory() as session:
            live = select(Attempt.job_number).where(Attempt.state != "ended")
            numbers = list(session.scalars(live))
            assert len(numbers) == len(set(numbers))
            held = select(func.coalesce(func.sum(Allocation.milli), 0)).join(
                Attempt, Attempt.id == Allocation.attempt_id
            )
            allocated = session.scalar(held.where(Attempt.state != "ended"))
            assert allocated == session.scalar(select(func.sum(Device.used_milli))) <= 4000  # type: ignore[operator]
            assert set(session.scalars(select(Job.number))) == self.accepted
            for number, state, attempts in session.execute(select(Job.number, Job.state, Job.attempts)):
                assert (state in {"placed", "running"}) == (number in numbers)
                placed = select(func.count()).where(Event.job_number == number, Event.name == "place")
                assert session.scalar(placed) == attempts
            promised = select(Job.state).join(Reservation, Reservation.job_number == Job.number)
            assert set(session.scalars(promised)) <= {"queued", "cancelled"}


def test_promises_hold_whatever_is_done(queue: Queue) -> None:
    chance = random.Random(1)  # one story, the same each time
    lender = queue.user_id
    story = Story(queue, [lender, queue.join("owner", guaranteed=2)])
    for _ in range(4):
        story.submit(0)
    story.dispatch(0)
    story.submit(1)  # of the owner: two have to make room in time
    for _ in range(40):
        getattr(story, chance.choice(ACTS))(chance.randrange(100))
        story.check()
    with queue.factory() as session:
        assert session.scalar(select(func.count()).where(Event.name == "preempt_requested"))
