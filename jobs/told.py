"""Estimates that were told: recorded, compared with what came, and corrected by that."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import and_, case, false, func, or_, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from stoker.jobs.forecast import later
from stoker.jobs.lifecycle import State
from stoker.jobs.models import Estimate, Job
from stoker.jobs.outlook import Outlook

PAST_DAYS, PAST_ESTIMATES = 14, 500
LEAST_SECONDS = 60.0  # a shorter wait says nothing about an estimate
ENOUGH = 20  # waits, before what came corrects what is told
AGAIN_SECONDS, MOST_EACH = 600.0, 20  # of one job are recorded


@dataclass(frozen=True, slots=True)
class PastError:
    """How good the estimates of starts were."""

    waits: int  # that could be compared
    median_error: float | None  # share of the true wait
    bias: float | None  # median of what was told, less what came, as a share of it; above 0: told too late


@dataclass(frozen=True, slots=True)
class Correction:
    """What came, of what was told: percentiles of true wait by estimated wait."""

    low: float = 0.6
    middle: float = 1.0
    high: float = 1.8

    @classmethod
    def of(cls, past: Sequence[tuple[float, float]]) -> "Correction":
        """Learn from past waits, each as it was estimated and as it came, in seconds; from too few nothing."""
        ratios = [came / raw for raw, came in past if raw >= 1.0]
        if len(ratios) < ENOUGH:
            return cls()
        cuts = statistics.quantiles(ratios, n=10)
        later = statistics.mean(ratio > 1 for ratio in ratios)
        chance = abs(later - 0.5) < 1 / math.sqrt(len(ratios))  # as far as a fair coin goes, nineteen times of twenty
        return cls(cuts[0], 1.0 if chance else statistics.median(ratios), cuts[8])

    def apply(self, outlook: Outlook) -> Outlook:
        """The outlook as experience has it: shifted by the usual error, with a range that held nine times of ten."""
        if not outlook.start_seconds:
            return outlook
        start = outlook.start_seconds
        shift = start * (self.middle - 1)
        high = outlook.start_high_seconds
        return replace(
            outlook,
            start_seconds=start * self.middle,
            start_low_seconds=min(outlook.start_low_seconds * self.middle, start * self.low),
            start_high_seconds=None if high is None else max(high * self.middle, start * self.high),
            end_seconds=None if outlook.end_seconds is None else outlook.end_seconds + shift,
        )


def correction(session: Session) -> Correction:
    """What past waits teach; one that is longer already than was estimated counts with what it has come to so far."""
    return Correction.of([(row.raw_seconds, row.came) for row in _past(session, overdue=True)])


def past_error(session: Session) -> PastError:
    """How good the first estimate of each job was that has started in the last two weeks."""
    errors = [(row.told - row.came) / row.came for row in _past(session)]
    if not errors:
        return PastError(0, None, None)
    return PastError(len(errors), statistics.median(map(abs, errors)), statistics.median(errors))


@dataclass(frozen=True, slots=True)
class _Wait:
    told: float
    raw_seconds: float
    came: float


def _past(session: Session, *, overdue: bool = False) -> list[_Wait]:
    """The first estimate of each job, and how long it waited from then on, in seconds; of jobs that have started.

    With ``overdue`` also those that should have: without them the longest waits would teach last.
    """
    waits = and_(Job.started_at.is_(None), Job.state == State.QUEUED) if overdue else false()
    came = func.extract("epoch", case((waits, func.now()), else_=Job.started_at) - Estimate.made_at)
    late = or_(Job.started_at.is_not(None), came > Estimate.raw_seconds)
    rows = session.execute(
        select(func.extract("epoch", Estimate.start_at - Estimate.made_at), Estimate.raw_seconds, came)
        .join(Job, Job.number == Estimate.job_number)
        .where(Estimate.made_at > func.now() - text(f"interval '{PAST_DAYS} days'"), came >= LEAST_SECONDS, late)
        .ext(distinct_on(Estimate.job_number))
        .order_by(Estimate.job_number.desc(), Estimate.id)
        .limit(PAST_ESTIMATES)
    )
    return [_Wait(float(told), float(raw), float(true)) for told, raw, true in rows]


def record(session: Session, now: datetime, told: Iterable[tuple[int, Outlook, float]]) -> None:
    """Record what is told of jobs: number, outlook, and the wait before it was corrected.

    Of one job at most one in ten minutes, and twenty in all.
    """
    wanted = {number: (outlook, raw) for number, outlook, raw in told if outlook.start_seconds is not None}
    if not wanted:
        return
    known = session.execute(
        select(Estimate.job_number, func.count(), func.max(Estimate.made_at))
        .where(Estimate.job_number.in_(wanted))
        .group_by(Estimate.job_number)
    )
    for number, count, latest in known:
        if count >= MOST_EACH or now - latest < timedelta(seconds=AGAIN_SECONDS):
            del wanted[number]
    session.add_all(_row(number, now, *found) for number, found in wanted.items())
    session.flush()


def _row(number: int, now: datetime, outlook: Outlook, raw: float) -> Estimate:
    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else later(now, seconds)

    start = outlook.start_seconds or 0.0
    return Estimate(
        job_number=number,
        made_at=now,
        position=outlook.position,
        start_at=later(now, start),
        raw_seconds=raw,
        start_low_at=later(now, min(outlook.start_low_seconds, start)),
        start_high_at=at(outlook.start_high_seconds),
        end_at=at(outlook.end_seconds),
    )
