"""The parts of a worker, put together in the test's own process around a real database."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs.database import connect
from stoker.jobs.fleet import Offer
from stoker.jobs.models import Checkpoint, LogChunk, MetricSegment
from stoker.jobs.vault import Vault
from stoker.settings import Settings
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Nothing
from stoker.workers.environments import Environments
from stoker.workers.kinds import Kinds
from stoker.workers.lease import LeaseKeeper
from stoker.workers.membership import Membership
from stoker.workers.preparation import Preparation
from stoker.workers.quarantine import Quarantine
from stoker.workers.reporting import Report
from stoker.workers.runner import Runner
from stoker.workers.runs import Run, Runs
from stoker.workers.trainers import ForkServer
from tests.support.queue import Queue

LATER = 60.0  # seconds; no batch is due by itself
NEVER_STARTED = ForkServer({}, (sys.executable, "-c", "pass"))


@dataclass
class Parts:
    """A queue with one claimed attempt, and what a worker makes to run it."""

    queue: Queue
    home: Path
    url: str

    def __post_init__(self) -> None:
        """Claim."""
        self.settings = Settings(database_url=self.url, home=self.home, lease_seconds=LATER)
        self.membership = Membership(self.queue.factory, Offer("one", 4000, 8 * 10**9, 16, "cpu-x"), LATER)
        self.membership.join()
        self.runs = Runs()
        self.keepers: list[LeaseKeeper] = []

    def claim(self) -> Run:
        """Submit, place and claim a job, as a runner does."""
        self.number = self.queue.submit()
        (outgoing,) = self.queue.dispatch()
        return Run(self.queue.claim(outgoing.attempt_id, self.membership.id), self.membership.id, LATER)

    def placed(self) -> UUID:
        """Submit and place a job."""
        self.number = self.queue.submit()
        return self.queue.dispatch()[0].attempt_id

    def report(self, run: Run, factory: sessionmaker[Session] | None = None) -> Report:
        """What the run reports, written only when somebody asks."""
        return Report(factory or self.queue.factory, run.id, run.incarnation, LATER)

    def runner(self) -> Runner:
        """A runner whose fork server is not there."""
        quarantine = Quarantine(self.queue.factory, "one", Nothing(), lambda _: True)
        bounds, cache_bytes = Bounds("open"), self.settings.cache_bytes
        preparation = Preparation(self.queue.factory, Nothing(), {}, self.settings.cache, cache_bytes, bounds)
        kinds = Kinds(self.settings, preparation, Environments(self.settings, NEVER_STARTED, {}, bounds))
        return Runner(
            self.queue.factory,
            self.settings,
            self.membership,
            Nothing(),
            NEVER_STARTED,
            self.runs,
            kinds,
            quarantine,
            Vault(None),
            bounds,
        )

    def keeper(self) -> LeaseKeeper:
        """The keeper of this worker's leases; stopped by the fixture."""
        health = self.home / "health"
        made = LeaseKeeper(self.settings, self.url, self.membership, self.runs, NEVER_STARTED, health)
        self.keepers.append(made)
        return made

    def count(self, kind: type[MetricSegment] | type[LogChunk] | type[Checkpoint]) -> int:
        """How many rows of a kind the job has."""
        with self.queue.factory() as session:
            return session.scalar(select(func.count()).where(kind.job_number == self.number)) or 0


@contextmanager
def parts_of_a_worker(url: str, home: Path) -> Iterator[Parts]:
    """A worker's parts, registered."""
    engine = connect(url)
    made = Parts(Queue(engine), home, url)
    try:
        yield made
    finally:
        for keeper in made.keepers:
            keeper.stop()
        engine.dispose()
