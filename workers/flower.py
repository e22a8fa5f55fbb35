"""What Flower asks of a worker: Terminate and Revoke cancel a job, Shutdown stops the worker, the rest is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery import bootsteps
from celery.worker import control
from celery.worker.request import Request
from kombu.utils.url import maybe_sanitize_url
from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import AlreadyFinal, NotFound
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Attempt, Job
from stoker.jobs.submissions import cancel
from stoker.log import Events, about
from stoker.workers.herald import Herald
from stoker.workers.membership import Membership
from stoker.workers.transactions import once

events = Events(__name__)
ACTOR = "Flower (shared login)"
REFUSED = (  # they would let a worker take no jobs, or too many, and nothing would say so
    *("pool_grow", "pool_shrink", "pool_restart", "autoscale", "add_consumer", "cancel_consumer"),
    *("rate_limit", "time_limit", "disable_events"),
)


class RunRequest(Request):
    """A task that is stopped through the database, never through the pool: threads cannot be ended."""

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Nothing: the control command has asked for the cancel already."""

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Nothing: a stop of the worker reaches runs through its bootstep."""

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """Send an event if the broker is there; a monitor must never hurt a job."""
        try:
            super().send_event(type, **fields)
        except Exception as error:  # kombu, redis and OSError: whatever a dead broker raises
            events.info("event_lost", kind=type, error=str(error)[:300])


def presence_step(herald: Herald) -> type:
    """A bootstep for each time that the consumer has connected: it may have missed who began to listen meanwhile."""

    class Presence(bootsteps.StartStopStep):
        """Runs when the consumer can send events."""

        requires = ("celery.worker.consumer.control:Control",)

        def start(self, consumer: Any) -> None:
            """Have everything told again."""
            herald.repeat(consumer)

    return Presence


def install_controls(sessions: sessionmaker[Session], membership: Membership, herald: Herald) -> None:
    """Take over Celery's remote control commands, in this process."""
    _install(_revoke(sessions, herald), "revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
    _install(_shutdown(membership), "shutdown")
    _install(_heartbeat(herald), "heartbeat")
    control.inspect_command(name="stats")(_stats())
    for name in REFUSED:
        _install(_refuse(name), name)


def _install(command: Callable[..., Any], name: str, **options: Any) -> None:
    control.control_command(name=name, **options)(command)


def _revoke(sessions: sessionmaker[Session], herald: Herald) -> Callable[..., Any]:
    """Both buttons cancel in the database. Every worker is asked; the cancel is idempotent."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="revoke")  # the consumer must not wait for the database

    def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> dict[str, str]:
        del state, terminate, signal
        ids = task_id if isinstance(task_id, list | tuple | set) else [task_id]
        for one in ids:
            pool.submit(_cancel_or_log, sessions, str(one), herald)
        return {"ok": f"cancelling {len(ids)}"}

    return revoke


def _shutdown(membership: Membership) -> Callable[..., Any]:
    stop = control.shutdown

    def shutdown(state: Any, **fields: Any) -> Any:
        membership.stopped_by = ACTOR
        return stop(state, **fields)

    return shutdown


def _heartbeat(herald: Herald) -> Callable[..., Any]:
    """Who begins to listen to events asks for it, once connected."""
    beat = control.heartbeat

    def heartbeat(state: Any, **_: Any) -> Any:
        herald.repeat(state.consumer)
        return beat(state)

    return heartbeat


def _stats() -> Callable[..., Any]:
    """What Flower shows of a worker; of a broker on a unix socket kombu tells the URL with its password."""
    tell = control.stats

    def stats(state: Any, **_: Any) -> Any:
        found = tell(state)
        found["broker"]["hostname"] = maybe_sanitize_url(found["broker"]["hostname"])
        return found

    return stats


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(state: Any, **_: Any) -> dict[str, str]:
        del state
        events.warning("control_refused", command=name)
        return {"error": f"Stoker does not allow {name}: workers are set by STOKER_* settings and `stoker worker`"}

    return refuse


def _cancel_or_log(sessions: sessionmaker[Session], task: str, herald: Herald) -> None:
    with about(attempt=task[:100]):
        try:
            once(sessions, lambda session: cancel_attempt(session, UUID(task)))
        except (ValueError, NotFound, AlreadyFinal) as refusal:
            events.info("revoke_refused", reason=str(refusal))
        except (exc.DBAPIError, exc.TimeoutError) as error:
            events.warning("revoke_failed", error=str(error.args[0]).splitlines()[0][:300])
        else:
            herald.look()  # if nothing runs, it has ended


def cancel_attempt(session: Session, attempt: UUID) -> None:
    """Cancel the job of an attempt that has not ended, or that is to be followed by another one.

    Raises NotFound, AlreadyFinal: the job has ended, or another attempt is its task now.
    """
    found = session.get(Attempt, attempt)
    if found is None:
        raise NotFound("attempt", attempt)
    job = session.get_one(Job, found.job_number)
    if found.ended_at is not None and (job.attempts != found.ordinal or job.state != State.QUEUED):
        raise AlreadyFinal(found.job_number, "cancel", f"not on attempt {found.ordinal} any more")
    cancel(session, found.job_number, actor=ACTOR)
