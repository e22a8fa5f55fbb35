"""One attempt as named steps: claim, prepare, start, watch, finish."""

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import UUID

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AttemptClosed, DataDamaged, InvalidInput, NotFound, Unavailable
from stoker.jobs import attempts
from stoker.jobs.attempts import Ending
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.vault import Vault
from stoker.log import Events
from stoker.settings import Settings
from stoker.workers import host, processes
from stoker.workers.bounds import Bounds
from stoker.workers.decoding import Decoding, NotDecoded
from stoker.workers.devices import Inventory
from stoker.workers.logfile import LogFile
from stoker.workers.membership import Membership
from stoker.workers.orders import Order
from stoker.workers.preparation import Preparation, make_scratch
from stoker.workers.quarantine import Quarantine
from stoker.workers.recipes import Recipe
from stoker.workers.reporting import Report
from stoker.workers.runs import Asked, Interrupted, Run, Runs
from stoker.workers.storing import Storing
from stoker.workers.supervision import Sight, Supervision
from stoker.workers.trainers import ForkServer, Trainer, allowed_environment
from stoker.workers.transactions import is_passing, once, repeat
from stoker.workers.verdict import failed, judge

events = Events(__name__)
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
KILL_SECONDS = 10.0
LEASE_SHARE = 0.8  # of a lease after which a trainer that heard nothing freezes


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended, for Flower."""

    outcome: Outcome | None  # None: the attempt was not ours, or was taken away
    state: State | None = None  # of the job
    text: str = ""
    failure: Failure | None = None


class Kind(Protocol):
    """One attempt at a job of some kind."""

    def order(self) -> Order:
        """All that its trainer is told; brings to this machine what the trainer needs."""

    def ending(self, sight: Sight, storing: Storing) -> Ending:
        """What was seen of the trainer, once that is gone, as an ending."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs attempts, each in the thread that calls ``run``."""

    sessions: sessionmaker[Session]
    settings: Settings
    membership: Membership
    inventory: Inventory
    fork_server: ForkServer
    runs: Runs
    environment: dict[str, str]  # of the worker; trainers see an allow-list of it
    quarantine: Quarantine
    vault: Vault  # opens the secrets of jobs
    bounds: Bounds

    def run(self, attempt: UUID) -> Ended:
        """Run an attempt from claim to end; an attempt that is not to run here, or not any more, is left alone.

        Raises nothing. One that could not be ended here, the keeper of the leases ends.
        """
        with self.runs.claiming(attempt):
            run = self._claim(attempt)
            if run is None:
                return Ended(None)
            with self.runs.holding(run):
                return self._held(run)

    def _held(self, run: Run) -> Ended:
        try:
            return self._attempt(run)
        except AttemptClosed:
            events.warning("attempt_taken_away", attempt=run.id, job=run.claimed.job_number)
        except Exception:
            events.error("attempt_not_ended", attempt=run.id, job=run.claimed.job_number)
        return Ended(None)

    def _claim(self, attempt: UUID) -> Run | None:
        lease = self.settings.lease_seconds
        before, incarnation = processes.boottime(), self.membership.id
        try:
            claimed = once(
                self.sessions, lambda session: attempts.claim(session, attempt, incarnation, lease, self.vault)
            )
        except AttemptClosed:
            events.info("message_dropped", attempt=attempt, reason="late, doubled or foreign")
            return None
        except (exc.DBAPIError, exc.TimeoutError) as error:  # the message comes again while the attempt is placed
            events.warning("claim_failed", attempt=attempt, error=str(error.args[0]).splitlines()[0][:300])
            return None
        events.info("attempt_claimed", attempt=attempt, job=claimed.job_number, ordinal=claimed.ordinal)
        return Run(claimed, incarnation, before + LEASE_SHARE * lease)

    def _attempt(self, run: Run) -> Ended:
        report = Report(self.sessions, run.id, run.incarnation, self.settings.batch_seconds)
        root = self.settings.home / "scratch" / self.membership.offer.name
        try:
            ending = self._work(run, root, report)
            self._report_rest(run, report)
            return self._finish(run, replace(ending, ran_seconds=run.ran_seconds))
        finally:
            shutil.rmtree(root / str(run.id), ignore_errors=True)

    def _report_rest(self, run: Run, report: Report) -> None:
        """Write what is left; what the database will never take is no reason not to end.

        Raises AttemptClosed.
        """
        try:
            report.write_all(run.may_wait)
        except AttemptClosed:
            raise
        except Exception as error:
            events.error("report_cut_short", attempt=run.id)
            report.drop()
            report.note(f"the end of what it reported could not be stored: {type(error).__name__}")
            report.write_all(run.may_wait)

    def _work(self, run: Run, root: Path, report: Report) -> Ending:
        """Prepare, start and watch; every way in which that can end becomes an ending.

        Raises AttemptClosed.
        """
        try:
            return self._lead(run, make_scratch(root, run), report)
        except AttemptClosed:
            raise
        except Interrupted:
            if run.asked is Asked.CLOSED:
                raise AttemptClosed(run.id) from None
            return judge(run.asked, Sight())
        except Exception as error:
            return _ending_of(error, run)

    def _lead(self, run: Run, scratch: Path, report: Report) -> Ending:
        """Lead an attempt from its preparation to its ending.

        Raises AttemptClosed, Interrupted, and what ``_ending_of`` takes.
        """
        self.bounds.check_network(run.claimed.spec.network)
        try:
            with self._kind(run, scratch, report) as kind:
                sight, storing = self._watch(run, kind.order(), report)
                self._examine(run, sight)
                if run.asked is not Asked.CLOSED:
                    return kind.ending(sight, storing)
        except NotDecoded as end:
            if run.asked is not Asked.CLOSED:
                return end.ending
        raise AttemptClosed(run.id)

    @contextmanager
    def _kind(self, run: Run, scratch: Path, report: Report) -> Iterator[Kind]:
        """What is to be run, and what it needs from others, kept as long as it runs."""
        preparation = self._preparation()
        decoding = Decoding(preparation, run, scratch, lambda order: self._watch(run, order, report)[0])
        with decoding.prepared() as source:
            yield Recipe(preparation, run, scratch, source)

    def _preparation(self) -> Preparation:
        visible, settings = allowed_environment(self.environment), self.settings
        return Preparation(self.sessions, self.inventory, visible, settings.cache, settings.cache_bytes, self.bounds)

    def _watch(self, run: Run, order: Order, report: Report) -> tuple[Sight, Storing]:
        """Start a trainer and watch it; whatever happens, it is gone afterwards, and its checkpoints are stored."""
        run.check()
        scratch = Path(order.scratch)
        log = LogFile(scratch / "output.log")
        storing = Storing(self.sessions, run, scratch, report)
        trainer = None
        try:
            trainer = self.fork_server.spawn(replace(order, deadline=run.deadline), log.writer, run.check)
            run.attach(trainer)
            first_step = partial(self._first_step, run)
            sight = Supervision(run, trainer, log, report, storing, self.settings, first_step).watch()
        finally:
            run.attach(None)
            if trainer:
                _end(trainer)
                run.frozen_seconds += trainer.time_frozen(time.monotonic())
            storing.finish()
            log.close()
        for refusal in storing.refused:
            report.note(refusal)
        return sight, storing

    def _first_step(self, run: Run) -> bool:
        """Note the first step; whether that worked.

        Raises AttemptClosed.
        """
        machine = host.machine(run.claimed.device, self.membership.offer.devices, self.membership.offer.cpu_model)
        try:
            once(self.sessions, lambda session: attempts.first_step(session, run.id, run.incarnation, machine))
        except (exc.DBAPIError, exc.TimeoutError) as error:
            if not is_passing(error):
                raise
            return False
        return True

    def _finish(self, run: Run, ending: Ending) -> Ended:
        try:
            state = self._store_ending(run, ending)
        except AttemptClosed:
            raise
        except Exception as error:
            if isinstance(error, exc.DBAPIError | exc.TimeoutError) and is_passing(error):
                raise  # the worker stops, and cannot wait any longer
            events.error("ending_refused", attempt=run.id)
            ending = failed("worker_lost", f"its end could not be stored: {type(error).__name__}", Outcome.LOST)
            ending = replace(ending, ran_seconds=run.ran_seconds)
            state = self._store_ending(run, ending)
        klass = ending.failure.klass if ending.failure else None
        events.info(
            "attempt_ended",
            attempt=run.id,
            job=run.claimed.job_number,
            outcome=ending.outcome,
            state=state,
            klass=klass,
        )
        return Ended(ending.outcome, state, ending.reason, ending.failure)

    def _store_ending(self, run: Run, ending: Ending) -> State:
        return repeat(
            self.sessions,
            lambda session: attempts.finish(session, run.id, run.incarnation, ending),
            go_on=run.may_wait,
            what="finish",
        )

    def _examine(self, run: Run, sight: Sight) -> None:
        """Take the run's devices out of use if they are not to be trusted; they are still its own."""
        if run.claimed.device_uuids:
            self.quarantine.examine(run.claimed.device_uuids, sight, run.may_wait)


def _ending_of(error: Exception, run: Run) -> Ending:
    """How an attempt ends by an error of its supervisor's own steps."""
    if isinstance(error, DataDamaged | NotFound):
        return failed("data_missing", str(error))
    if isinstance(error, InvalidInput):
        return failed("environment_failed", str(error))
    if isinstance(error, Unavailable):
        return failed("worker_lost", str(error), Outcome.LOST)
    events.error("run_failed", attempt=run.id)
    if isinstance(error, OSError):
        return failed("disk_full" if error.errno in DISK_FULL else "worker_lost", str(error))
    return failed("worker_lost", f"the supervisor failed: {type(error).__name__}", Outcome.LOST)


def _end(trainer: Trainer) -> None:
    """Kill what is left of a trainer, see it gone, and let go of it."""
    until = time.monotonic() + KILL_SECONDS
    if trainer.status is None:
        trainer.kill()
    while not trainer.gone and time.monotonic() < until:
        trainer.wait(0.2)
    trainer.close()
