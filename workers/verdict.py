"""From what was seen of a trainer to how its attempt ended. Pure."""

import signal

from stoker.jobs.attempts import Ending
from stoker.jobs.failures import CLASSES, Failure
from stoker.jobs.lifecycle import Outcome
from stoker.workers.runs import Asked
from stoker.workers.supervision import Limit, Sight

# What only the supervisor can know; a trainer that claims one of these would run again for free.
NOT_FOR_TRAINERS = {"worker_lost", "signal", "stalled", "time_limit", "suspected_poison", "environment_failed"}
REASONS = {Asked.STOP: "worker_stopping", Asked.PREEMPT: "preempted", Asked.CANCEL: "cancelled"}


def failed(klass: str, evidence: str, outcome: Outcome = Outcome.FAILED) -> Ending:
    """An attempt that failed, or was lost, by what its supervisor met."""
    return Ending(outcome, klass, failure=Failure(klass, evidence))


def is_complete(sight: Sight) -> bool:
    """Whether the trainer ended well and handed in a result."""
    return sight.status == 0 and sight.result is not None and sight.predictions is not None


def judge(asked: Asked, sight: Sight) -> Ending:
    """How an attempt without a complete result ended."""
    if asked is Asked.CANCEL:
        return Ending(Outcome.CANCELLED, REASONS[asked])
    if sight.lost is not None:
        failure = Failure("worker_lost", sight.lost)
        return Ending(Outcome.LOST, failure.klass, failure=failure)
    if asked in REASONS and sight.failure is None and not _died_by_itself(sight):
        return Ending(Outcome.PREEMPTED, REASONS[asked])
    failure = _limit(sight.limit) if sight.limit else _failure(sight)
    return Ending(Outcome.FAILED, failure.klass, failure=failure)


def _died_by_itself(sight: Sight) -> bool:
    """Whether it ended by an error of its own while it was asked to stop, not by our signals."""
    return sight.status is not None and sight.status > 0


def _limit(limit: Limit) -> Failure:
    if limit is Limit.TIME:
        return Failure("time_limit", "it ran longer than its time_limit")
    return Failure("stalled", "it made no progress for its stall_timeout; its stacks are at the end of the log")


def _failure(sight: Sight) -> Failure:
    if sight.failure is not None:
        name = sight.failure["class"]
        known = name in CLASSES and name not in NOT_FOR_TRAINERS
        return Failure(name if known else "user_error", sight.failure["evidence"], sight.failure["fix"])
    status = sight.status or 0
    if status == -signal.SIGKILL and sight.memory_kills > 0:
        return Failure("host_out_of_memory", "the kernel killed it for want of memory")
    if status < 0:
        return Failure("signal", f"it was ended by {_name(-status)}" + _lines(sight))
    if sight.stopped:
        return Failure("signal", "it was asked to stop by a SIGTERM that Stoker did not send")
    if status == 0:
        return Failure("user_error", "it ended without a result" + _lines(sight))
    return Failure("user_error", f"it ended with exit code {status}" + _lines(sight))


def _name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _lines(sight: Sight) -> str:
    return f"; the end of its log:\n{sight.last_lines}"[:4000] if sight.last_lines else ""
