"""Metrics as they are shown: one series for each name, cut where an attempt went on from a checkpoint, and thinned."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.jobs.models import Attempt, MetricSegment
from stoker.jobs.records import cuts, unpack_segment

MAX_POINTS = 2_000

Points = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the steps of a job, in the order of the steps; null: the value was no finite number."""

    steps: list[int]
    values: list[float | None]
    downsampled: bool


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of a job, by name."""

    metrics: dict[str, Series]


@dataclass(frozen=True, slots=True)
class NewPoints:
    """What came in since an earlier look."""

    segment_id: int
    key: str
    steps: list[int]
    values: list[float | None]


def read_metrics(session: Session, number: int, keys: Sequence[str] = (), points: int = MAX_POINTS) -> Metrics:
    """A job's metrics, at most ``points`` of each; ``keys``: only these."""
    statement = (
        select(MetricSegment)
        .join(Attempt, Attempt.id == MetricSegment.attempt_id)
        .where(MetricSegment.job_number == number)
        .order_by(MetricSegment.key, Attempt.ordinal, MetricSegment.first_step)
    )
    if keys:
        statement = statement.where(MetricSegment.key.in_(keys))
    counted = cuts(session, number)
    series: dict[str, Points] = {}
    for segment in session.scalars(statement):
        last = counted.get(segment.attempt_id)
        pairs = zip(*unpack_segment(segment), strict=True)
        series.setdefault(segment.key, []).extend(pair for pair in pairs if last is None or pair[0] <= last)
    return Metrics({key: _series(found, points) for key, found in series.items() if found})


def new_points(session: Session, number: int, after: int, limit: int) -> list[NewPoints]:
    """The segments that were written after the one with id ``after``, in the order of writing."""
    statement = (
        select(MetricSegment)
        .where(MetricSegment.job_number == number, MetricSegment.id > after)
        .order_by(MetricSegment.id)
        .limit(limit)
    )
    found = []
    for segment in session.scalars(statement):
        steps, values = unpack_segment(segment)
        found.append(NewPoints(segment.id, segment.key, list(steps), [_finite(value) for value in values]))
    return found


def _series(found: Points, limit: int) -> Series:
    kept = thin(found, limit)
    return Series([step for step, _ in kept], [_finite(value) for _, value in kept], len(kept) < len(found))


def thin(found: Points, limit: int) -> Points:
    """At most ``limit`` (>= 4) of the points: the first, the last, and lowest and highest of equal stretches between.

    A spike of one step is thus never lost, as it would be by taking every n-th point.
    """
    if len(found) <= limit:
        return found
    inner = found[1:-1]
    buckets = (limit - 2) // 2
    kept = [found[0]]
    for bucket in range(buckets):
        part = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        lowest, highest = min(part, key=_order), max(part, key=_order)
        kept += [lowest] if lowest == highest else sorted([lowest, highest])
    return [*kept, found[-1]]


def _order(point: tuple[int, float]) -> float:
    return -math.inf if math.isnan(point[1]) else point[1]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
