"""One attempt as named steps: claim, prepare, start, watch, finish."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import UUID

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AttemptClosed, DataDamaged, InvalidInput, NotFound, Unavailable
from stoker.jobs import attempts
from stoker.jobs.attempts import Ending, Usage
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome, State
from stoker.jobs.refusals import refuse_network
from stoker.jobs.vault import Vault
from stoker.log import Events, about
from stoker.settings import Settings
from stoker.training.failure import TrainingFailed
from stoker.training.removal import remove_tree
from stoker.workers import host, interpreters, processes
from stoker.workers.bounds import Bounds
from stoker.workers.decoding import NotDecoded
from stoker.workers.devices import Inventory
from stoker.workers.ends import end
from stoker.workers.kinds import Kind, Kinds
from stoker.workers.logfile import LogFile
from stoker.workers.membership import Membership
from stoker.workers.orders import Order
from stoker.workers.preparation import make_scratch
from stoker.workers.quarantine import Quarantine
from stoker.workers.reporting import Report
from stoker.workers.runs import Asked, Interrupted, Run, Runs
from stoker.workers.storing import Storing
from stoker.workers.supervision import Sight, Supervision
from stoker.workers.trainers import ForkServer
from stoker.workers.transactions import is_passing, once, repeat
from stoker.workers.usage import Meter
from stoker.workers.verdict import cut_short, failed, judge, masked

events = Events(__name__)
EXPECTED = (TrainingFailed, DataDamaged, InvalidInput, NotFound, Unavailable)  # of a preparation
LEASE_SHARE = 0.8  # of a lease after which a trainer that heard nothing freezes


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    outcome: Outcome | None  # None: the attempt was not ours, or was taken away
    state: State | None = None  # of the job
    text: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs attempts, each in the thread that calls ``run``."""

    sessions: sessionmaker[Session]
    settings: Settings
    membership: Membership
    inventory: Inventory
    fork_server: ForkServer
    runs: Runs
    kinds: Kinds
    quarantine: Quarantine
    vault: Vault  # opens the secrets of jobs
    bounds: Bounds

    def run(self, attempt: UUID) -> Ended:
        """Run an attempt from claim to end; an attempt that is not to run here, or not any more, is left alone.

        Raises nothing. One that could not be ended here, the keeper of the leases ends.
        """
        with about(attempt=attempt), self.runs.claiming(attempt):
            run = self._claim(attempt)
            if run is None:
                return Ended(None)
            with about(job=run.claimed.job_number), self.runs.holding(run):
                return self._held(run)

    def _held(self, run: Run) -> Ended:
        try:
            return self._attempt(run)
        except AttemptClosed:
            events.warning("attempt_taken_away")
        except Exception:
            events.error("attempt_not_ended")
        return Ended(None)

    def _claim(self, attempt: UUID) -> Run | None:
        lease = self.settings.lease_seconds
        before, incarnation = processes.boottime(), self.membership.id
        try:
            claimed = once(
                self.sessions, lambda session: attempts.claim(session, attempt, incarnation, lease, self.vault)
            )
        except AttemptClosed:
            events.info("message_dropped", reason="late, doubled or foreign")
            return None
        except (exc.DBAPIError, exc.TimeoutError) as error:  # the message comes again while the attempt is placed
            events.warning("claim_failed", error=str(error.args[0]).splitlines()[0][:300])
            return None
        events.info("attempt_claimed", job=claimed.job_number, ordinal=claimed.ordinal)
        return Run(claimed, incarnation, before + LEASE_SHARE * lease)

    def _attempt(self, run: Run) -> Ended:
        report = Report(self.sessions, run.id, run.incarnation, self.settings.batch_seconds, run.mask)
        root = self.settings.home / "scratch" / self.membership.offer.name
        try:
            ending = masked(self._work(run, root, report), run.mask)
            self._report_rest(run, report)
            return self._finish(run, replace(ending, ran_seconds=run.ran_seconds))
        finally:
            remove_tree(root / str(run.id))

    def _report_rest(self, run: Run, report: Report) -> None:
        """Write what is left; what the database will never take is no reason not to end.

        Raises AttemptClosed.
        """
        try:
            report.write_all(run.may_wait)
        except AttemptClosed:
            raise
        except Exception as error:
            events.error("report_cut_short")
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
            if not isinstance(error, EXPECTED):
                events.error("run_failed")
            return cut_short(error)

    def _lead(self, run: Run, scratch: Path, report: Report) -> Ending:
        """Lead an attempt from its preparation to its ending.

        Raises AttemptClosed, Interrupted, and what ``cut_short`` takes.
        """
        refuse_network(run.claimed.spec.network, self.bounds.network)
        if self.bounds.unconfined:
            report.note(self.bounds.banner)
        try:
            with self.kinds.of(run, scratch, report, lambda order: self._watch(run, order, report)[0]) as kind:
                sight, storing = self._watch(run, kind.order(), report)
                self._examine(run, sight)
                if run.asked is not Asked.CLOSED:
                    return replace(kind.ending(sight, storing), usage=self._usage(run, sight, kind))
        except NotDecoded as undecoded:
            if run.asked is not Asked.CLOSED:
                return undecoded.ending
        raise AttemptClosed(run.id)

    def _usage(self, run: Run, sight: Sight, kind: Kind) -> Usage:
        """What was used, and with what: for the record of the attempt."""
        installed = kind.interpreter.installed()
        software = {
            "python": interpreters.version(),
            "torch": installed.get("torch"),
            "packages": installed,
            "device": self._machine(run),
            "driver": self.inventory.driver() if run.claimed.device == "gpu" else None,
        }
        return Usage(sight.peak_memory_bytes or None, sight.gpu_bytes, sight.cpu_seconds, software)

    def _machine(self, run: Run) -> str:
        return host.machine(run.claimed.device, self.membership.offer.devices, self.membership.offer.cpu_model)

    def _watch(self, run: Run, order: Order, report: Report) -> tuple[Sight, Storing]:
        """Start a trainer and watch it; whatever happens, it is gone afterwards, and its checkpoints are stored."""
        run.check()
        scratch = Path(order.scratch)
        log = LogFile(scratch / "output.log", run.mask)
        storing = Storing(self.sessions, run, scratch, report)
        meter = Meter(self.inventory, run.claimed.device_uuids)
        trainer = None
        try:
            trainer = self.fork_server.spawn(replace(order, deadline=run.deadline), log.writer, run.check)
            run.attach(trainer)
            first_step = partial(self._first_step, run)
            sight = Supervision(run, trainer, log, report, storing, self.settings, first_step, meter).watch()
        finally:
            run.attach(None)
            if trainer:
                end(trainer)
                run.frozen_seconds += trainer.time_frozen(time.monotonic())
            storing.finish()
            meter.close()
            log.close()
        for refusal in storing.refused:
            report.note(refusal)
        return sight, storing

    def _first_step(self, run: Run) -> bool:
        """Note the first step; whether that worked.

        Raises AttemptClosed.
        """
        machine = self._machine(run)
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
            events.error("ending_refused")
            ending = failed("worker_lost", f"its end could not be stored: {type(error).__name__}", Outcome.LOST)
            ending = replace(ending, ran_seconds=run.ran_seconds)
            state = self._store_ending(run, ending)
        klass = ending.failure.klass if ending.failure else None
        events.info(
            "attempt_ended",
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
            fault = self.quarantine.examine(run.claimed.device_uuids, sight, run.may_wait)
            sight.device_fault = run.device_fault or fault
