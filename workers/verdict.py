"""From what was seen of a trainer to how its attempt ended. Pure."""

import errno
import signal
from dataclasses import replace
from typing import Any

from stoker.errors import DataDamaged, InvalidInput, NotFound, Unavailable
from stoker.jobs.attempts import Ending
from stoker.jobs.failures import CLASSES, Failure
from stoker.jobs.lifecycle import Outcome
from stoker.training.failure import TrainingFailed
from stoker.training.masking import Mask
from stoker.workers import tracebacks
from stoker.workers.runs import Asked
from stoker.workers.supervision import Limit, Sight

# What only the supervisor can know; a trainer that claims one of these would run again for free.
NOT_FOR_TRAINERS = {"worker_lost", "signal", "stalled", "time_limit", "suspected_poison", "environment_failed"}
SOUND = "the worker found nothing wrong with its devices"
IF_SOUND = "retry it, or set max_retries; if it recurs, look for an error of the program, such as a label out of range"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
REASONS = {Asked.STOP: "worker_stopping", Asked.PREEMPT: "preempted", Asked.CANCEL: "cancelled"}


def failed(klass: str, evidence: str, outcome: Outcome = Outcome.FAILED, fix: str = "") -> Ending:
    """An attempt that failed, or was lost, by what its supervisor met."""
    return Ending(outcome, klass, failure=Failure(klass, evidence, fix))


def cut_short(error: Exception) -> Ending:
    """How an attempt ended with which its supervisor could not go on."""
    if isinstance(error, TrainingFailed):  # before it was a training
        return failed(error.failure_class, error.evidence, fix=error.fix)
    if isinstance(error, DataDamaged | NotFound):
        return failed("data_missing", str(error))
    if isinstance(error, InvalidInput):  # it asks for what this worker does not allow
        return failed("environment_failed", str(error))
    if isinstance(error, Unavailable):
        return failed("worker_lost", str(error), Outcome.LOST)
    if isinstance(error, OSError):
        return failed("disk_full" if error.errno in DISK_FULL else "worker_lost", str(error))
    return failed("worker_lost", f"the supervisor failed: {type(error).__name__}", Outcome.LOST)


def masked(ending: Ending, mask: Mask) -> Ending:
    """The same ending without the job's secrets, whatever its program has put into its words and results."""
    failure, made = ending.failure, ending.predictions
    if failure is not None:
        failure = replace(failure, evidence=mask.text(failure.evidence), fix=mask.text(failure.fix))
    if made is not None:
        made = replace(made, classes=tuple(map(mask.text, made.classes)))
    words = {"reason": mask.text(ending.reason), "result": mask.document(ending.result)}
    return replace(ending, failure=failure, predictions=made, **words)


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
    failure = _limit(sight.limit, sight) if sight.limit else _failure(sight)
    return Ending(Outcome.FAILED, failure.klass, failure=failure)


def judge_own_code(asked: Asked, sight: Sight) -> Ending:
    """How a script or notebook ended, of which nothing is known but its exit code, its log, and what it chose to say.

    One that was asked to stop has succeeded only if it handed in a result: by its exit code alone, who stopped as a
    SIGTERM tells is not told from who had finished.
    """
    if asked is Asked.CANCEL or sight.lost is not None:
        return judge(asked, sight)
    finished = sight.status == 0 and sight.limit is None and sight.failure is None and not sight.stopped
    if finished and (asked not in REASONS or sight.result is not None):
        return Ending(Outcome.SUCCEEDED, "exit code 0")
    if asked in REASONS and sight.failure is None and sight.limit is None:
        return Ending(Outcome.PREEMPTED, REASONS[asked])
    # The kernel's kills are counted over the whole machine: a neighbour's says nothing of one that ended by itself.
    killed = sight.status == -signal.SIGKILL and sight.memory_kills
    if sight.limit or sight.failure or sight.stopped or killed:
        return judge(asked, sight)
    failure = tracebacks.explain(sight.status or 0, sight.printed)
    return Ending(Outcome.FAILED, failure.klass, failure=failure)


def _died_by_itself(sight: Sight) -> bool:
    """Whether it ended by an error of its own while it was asked to stop, not by our signals."""
    return sight.status is not None and sight.status > 0


def _limit(limit: Limit, sight: Sight) -> Failure:
    if limit is Limit.TIME:
        return Failure("time_limit", "it ran longer than its time_limit")
    if limit is Limit.DEVICE:
        return Failure("device_error", sight.device_fault or "")
    if limit is Limit.MEMORY:
        held, allowed = sight.peak_memory_bytes / 1e9, sight.memory_limit_bytes / 1e9
        return Failure("host_out_of_memory", f"its processes held {held:.2f} GB; resources.memory is {allowed:.2f} GB")
    if limit is Limit.PROCESSES:
        evidence = f"it had {sight.tasks:,} processes and threads; a job of its size may have {sight.tasks_limit:,}"
        return Failure(
            "user_error",
            evidence,
            "start fewer at a time, wait for those that have ended, or ask for more resources.cpus",
        )
    return Failure("stalled", "it made no progress for its stall_timeout; its stacks are at the end of the log")


def _failure(sight: Sight) -> Failure:
    if sight.failure is not None:
        return _told(sight, sight.failure)
    status = sight.status or 0
    if status == -signal.SIGKILL and sight.memory_kills > 0:
        return Failure("host_out_of_memory", "the kernel killed it for want of memory")
    if status < 0:
        return Failure("signal", f"it was ended by {tracebacks.signal_name(-status)}" + _lines(sight))
    if sight.stopped:
        return Failure("signal", "it was asked to stop by a SIGTERM that Stoker did not send")
    if status == 0:
        return Failure("user_error", "it ended without a result" + _lines(sight))
    return Failure("user_error", f"it ended with exit code {status}" + _lines(sight))


def _told(sight: Sight, words: dict[str, Any]) -> Failure:
    """What a trainer said of its own failure; what would cost it nothing counts only where the worker saw it, too."""
    klass, evidence = words["class"], words["evidence"]
    if klass not in CLASSES or klass in NOT_FOR_TRAINERS:
        klass = "user_error"
    if klass == "device_error" and sight.device_fault:
        return Failure(klass, f"{evidence}\n{sight.device_fault}")
    if klass == "device_error":
        return Failure(klass, f"{evidence}\n{SOUND}", IF_SOUND, unproven=True)
    return Failure(klass, evidence, words["fix"], unproven=klass == "disk_full" and sight.own_code)


def _lines(sight: Sight) -> str:
    return f"; the end of its log:\n{sight.last_lines}"[:4000] if sight.last_lines else ""
