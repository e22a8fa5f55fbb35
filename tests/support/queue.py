"""A queue in a test's own database: people, a worker, jobs, and the steps an attempt goes through."""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.accounts import Caller
from stoker.jobs.attempts import Ending, Outgoing, claim, finish
from stoker.jobs.claims import Claimed
from stoker.jobs.database import sessions
from stoker.jobs.dispatch import dispatch
from stoker.jobs.fleet import Identity, Offer, OfferedDevice, register
from stoker.jobs.leases import record_send
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.models import Attempt, Device, Event, Job, Lease, Team, TeamQuota, User, Worker
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.reads_fleet import list_workers
from stoker.jobs.spec import parse_spec
from stoker.jobs.submissions import add_job

LEASE = 60.0  # seconds; a test that wants one to run out says so
GPU = OfferedDevice("GPU-0", 0, "H100", 80 * 10**9)


def spec_document(**fields: object) -> dict[str, object]:
    """A small job's spec, with these fields replaced."""
    small = {"memory": 10**8, "cpus": 1}
    return {"kind": "train", "train": {"dataset": "digits"}, "resources": small} | fields


@dataclass
class Queue:
    """What a test does to a queue; each step is one transaction."""

    engine: Engine
    factory: sessionmaker[Session] = field(init=False)
    user_id: int = field(init=False)

    def __post_init__(self) -> None:
        """Add one team and one user."""
        self.factory = sessions(self.engine)
        with self.factory() as session:
            team = Team(name="vision")
            session.add(team)
            session.flush()
            user = User(name="ada", team_id=team.id)
            session.add(user)
            session.commit()
            self.user_id = user.id

    def join(self, team: str, guaranteed: int = 0) -> int:
        """Let a user of another team, which is guaranteed so many GPUs, submit from now on; returns the user's id."""
        with self.factory() as session:
            made = Team(name=team)
            session.add(made)
            session.flush()
            user = User(name=f"{team}-user", team_id=made.id)
            quota = TeamQuota(team_id=made.id, pool="default", gpus_milli=1000 * guaranteed)
            session.add_all([user, quota])
            session.commit()
            self.user_id = user.id
        return user.id

    def worker_states(self) -> dict[str, str]:
        """The workers by name, as everybody sees them."""
        with self.factory() as session:
            user = session.get_one(User, self.user_id)
            caller = Caller(user.id, user.name, user.team_id, "", "member", 1)
            return {found.name: found.state for found in list_workers(session, caller, 500, None).items}

    def submit(self, **fields: object) -> int:
        """Add a job; returns its number."""
        with self.factory() as session:
            job, _ = add_job(session, parse_spec(spec_document(**fields)), session.get_one(User, self.user_id))
            session.commit()
            return job.number

    def worker(
        self,
        name: str = "one",
        *,
        cpus: int = 4,
        devices: tuple[OfferedDevice, ...] = (),
        lease_seconds: float = LEASE,
        protocol: int = PROTOCOL,
    ) -> UUID:
        """Register a start of a worker; returns its incarnation."""
        identity = Identity(uuid.uuid4(), "host", "boot", 1, 0.0, "test", protocol)
        offer = Offer(name, cpus * 1000, 8 * 10**9, 16, "cpu-x", devices)
        with self.factory() as session:
            register(session, offer, identity, lease_seconds)
            session.commit()
        return identity.id

    def dispatch(self, *, sent: bool = True) -> list[Outgoing]:
        """Run one pass, and record its messages as taken by the broker."""
        with self.factory() as session:
            done = dispatch(session)
            session.commit()
        for outgoing in done.sent if sent else ():
            with self.factory() as session:
                record_send(session, outgoing.attempt_id, None)
                session.commit()
        return list(done.sent)

    def claim(self, attempt: UUID, incarnation: UUID, lease_seconds: float = LEASE) -> Claimed:
        """Claim an attempt."""
        with self.factory() as session:
            claimed = claim(session, attempt, incarnation, lease_seconds)
            session.commit()
        return claimed

    def finish(self, attempt: UUID, incarnation: UUID, ending: Ending | None = None) -> State:
        """Finish an attempt; without an ending it succeeded with an accuracy of 0.5."""
        ending = ending or Ending(Outcome.SUCCEEDED, result={"accuracy": 0.5})
        with self.factory() as session:
            state = finish(session, attempt, incarnation, ending)
            session.commit()
        return state

    def running(self, incarnation: UUID, lease_seconds: float = LEASE, **fields: object) -> tuple[int, UUID]:
        """Submit, place and claim one job; returns its number and attempt."""
        number = self.submit(**fields)
        (outgoing,) = self.dispatch()
        self.claim(outgoing.attempt_id, incarnation, lease_seconds)
        return number, outgoing.attempt_id

    def job(self, number: int) -> Job:
        """Read a job afresh."""
        with self.factory() as session:
            return session.get_one(Job, number)

    def attempts(self, number: int) -> list[Attempt]:
        """Read a job's attempts, oldest first."""
        with self.factory() as session:
            return list(session.scalars(select(Attempt).where(Attempt.job_number == number).order_by(Attempt.ordinal)))

    def events(self, number: int) -> list[str]:
        """The names of a job's events, oldest first."""
        with self.factory() as session:
            return list(session.scalars(select(Event.name).where(Event.job_number == number).order_by(Event.id)))

    def used(self) -> tuple[int, int, int, int]:
        """CPUs, memory, attempts and thousandths of devices that are promised, over all workers."""
        with self.factory() as session:
            sums = func.sum(Worker.cpus_used_milli), func.sum(Worker.memory_used_bytes), func.sum(Worker.attempts_used)
            devices = session.scalar(select(func.coalesce(func.sum(Device.used_milli), 0)))
            cpus, memory, attempts = session.execute(select(*sums)).one()
            return int(cpus), int(memory), int(attempts), int(devices or 0)

    def expire(self, holder: UUID) -> None:
        """Let a lease run out."""
        with self.factory() as session:
            past = func.now() - timedelta(seconds=1)
            session.execute(update(Lease).where(Lease.holder_id == holder).values(expires_at=past))
            session.commit()
