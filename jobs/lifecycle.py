"""The life of a job and of an attempt: states, and the moves between them, as one table each."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a job is."""

    WAITING = "waiting"  # for the jobs named in `after`
    QUEUED = "queued"
    PLACED = "placed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Move:
    """A change of state that is allowed from any of ``sources``."""

    name: str
    sources: frozenset[State]
    target: State


RELEASE = Move("release", frozenset({State.WAITING}), State.QUEUED)  # all of its `after` jobs succeeded
PLACE = Move("place", frozenset({State.QUEUED}), State.PLACED)
START = Move("start", frozenset({State.PLACED}), State.RUNNING)
REQUEUE = Move(
    "requeue", frozenset({State.PLACED, State.RUNNING}), State.QUEUED
)  # not claimed, preempted, lost, to be retried
SUCCEED = Move("succeed", frozenset({State.RUNNING}), State.SUCCEEDED)
FAIL = Move("fail", frozenset({State.PLACED, State.RUNNING}), State.FAILED)
CANCEL = Move("cancel", frozenset({State.WAITING, State.QUEUED, State.PLACED, State.RUNNING}), State.CANCELLED)
RETRY = Move("retry", frozenset({State.FAILED, State.CANCELLED}), State.QUEUED)  # the user's own act
RETRY_AFTER = Move("retry", frozenset({State.FAILED, State.CANCELLED}), State.WAITING)  # its `after` jobs still run

MOVES = (RELEASE, PLACE, START, REQUEUE, SUCCEED, FAIL, CANCEL, RETRY, RETRY_AFTER)
FORBIDDEN_BY_CANCEL = frozenset({RELEASE, PLACE, START, REQUEUE})  # a request to cancel turns these into CANCEL


class AttemptState(StrEnum):
    """Where an attempt is; it only ever moves forward."""

    PLACED = "placed"
    RUNNING = "running"
    ENDED = "ended"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LOST = "lost"
    NOT_CLAIMED = "not_claimed"
