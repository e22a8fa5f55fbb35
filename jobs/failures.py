"""From evidence to a failure class, and from the class to what becomes of the job. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 300.0
LOSSES_ON_SEVERAL_WORKERS = 3  # without a new checkpoint in between: the job is suspected of killing its workers
LOSSES_ANYWHERE = 5


class Cost(Enum):
    """What one more failure of a class costs the job."""

    FREE = "free"  # not the job's fault: it runs again
    RETRY = "retry"  # uses up one of max_retries
    FINAL = "final"  # would only happen again


CLASSES: dict[str, tuple[Cost, str]] = {
    "worker_lost": (Cost.FREE, "nothing to do: the job runs again elsewhere"),
    "device_error": (Cost.FREE, "nothing to do: the device is quarantined and the job runs again"),
    "disk_full": (Cost.FREE, "free space on the worker's disk"),
    "user_error": (Cost.RETRY, "read the traceback in the log"),
    "signal": (Cost.RETRY, "see which signal, and who sends it"),
    "host_out_of_memory": (Cost.RETRY, "ask for more resources.memory, or use a smaller batch"),
    "gpu_out_of_memory": (Cost.RETRY, "use a smaller batch, or ask for a GPU with more memory"),
    "stalled": (Cost.RETRY, "read the stacks at the end of the log, or raise stall_timeout"),
    "time_limit": (Cost.FINAL, "raise time_limit, or retry to go on from the latest checkpoint"),
    "data_missing": (Cost.FINAL, "check the data set's name and content"),
    "data_corrupt": (Cost.FINAL, "mend the named images, or raise train.max_bad_images"),
    "import_error": (Cost.FINAL, "add the missing package to the environment"),
    "environment_failed": (Cost.FINAL, "read how building the environment ended"),
    "checkpoint_mismatch": (Cost.FINAL, "start from scratch: the checkpoint belongs to another network"),
    "nan_loss": (Cost.FINAL, "lower the learning rate"),
    "suspected_poison": (Cost.FINAL, "find out why its workers die while they run it, then retry"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a class of CLASSES, what was seen, and what a user can do."""

    klass: str
    evidence: str
    fix: str = ""
    unproven: bool = False  # of a free class, by the trainer's word alone: it uses up a retry

    def document(self) -> dict[str, Any]:
        """As stored and shown."""
        known = {"class": self.klass, "evidence": self.evidence, "fix": self.fix or CLASSES[self.klass][1]}
        return known | ({"unproven": True} if self.unproven else {})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the job: it runs again after ``delay_seconds``, or it has failed for good."""

    again: bool
    failure: Failure
    delay_seconds: float = 0.0
    uses_retry: bool = False


def decide(failure: Failure, *, retries_used: int, max_retries: int, losses: int, workers_lost: int) -> Verdict:
    """Decide whether a job runs again.

    ``losses`` and ``workers_lost`` count infrastructure losses since the job's latest checkpoint, this one
    included, and the workers on which they happened.
    """
    cost = Cost.RETRY if failure.unproven else CLASSES[failure.klass][0]
    if cost is Cost.FINAL:
        return Verdict(False, failure)
    if cost is Cost.RETRY:
        return Verdict(retries_used < max_retries, failure, _delay(retries_used), uses_retry=True)
    if losses >= LOSSES_ANYWHERE or (losses >= LOSSES_ON_SEVERAL_WORKERS and workers_lost >= 2):
        evidence = (
            f"{losses} attempts were lost on {workers_lost} workers without a new checkpoint; last: {failure.evidence}"
        )
        return Verdict(False, Failure("suspected_poison", evidence))
    return Verdict(True, failure, 0.0 if losses <= 1 else _delay(losses - 2))


def _delay(times: int) -> float:
    return float(min(FIRST_DELAY_SECONDS * 2 ** min(times, 10), LONGEST_DELAY_SECONDS))
