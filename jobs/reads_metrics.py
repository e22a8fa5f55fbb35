"""Metrics as they are shown: one series for each name, cut where an attempt went on from a checkpoint, and thinned."""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.jobs.models import Attempt, MetricSegment
from stoker.jobs.records import cuts, unpack_segment

MAX_POINTS = 2_000

Point = tuple[int, float]


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
    """What came in since an earlier look; no steps where all of it has been superseded."""

    segment_id: int
    key: str
    steps: list[int]
    values: list[float | None]


def read_metrics(session: Session, number: int, keys: Sequence[str] = (), points: int = MAX_POINTS) -> Metrics:
    """A job's metrics, at most ``points`` of each; ``keys``: only these. Holds no more than that at any time."""
    statement = (
        select(MetricSegment)
        .join(Attempt, Attempt.id == MetricSegment.attempt_id)
        .where(MetricSegment.job_number == number)
        .order_by(MetricSegment.key, Attempt.ordinal, MetricSegment.first_step)
    )
    if keys:
        statement = statement.where(MetricSegment.key.in_(keys))
    counted = cuts(session, number)
    series = {}
    segments = session.scalars(statement, execution_options={"yield_per": 200})
    for key, of_key in itertools.groupby(segments, attrgetter("key")):
        kept, thinned = thin((point for segment in of_key for point in _counting(segment, counted)), points)
        if kept:
            series[key] = Series([step for step, _ in kept], [finite(value) for _, value in kept], thinned)
    return Metrics(series)


def new_points(session: Session, number: int, after: int, limit: int) -> list[NewPoints]:
    """The segments that were written after the one with id ``after``, in the order of writing.

    What a later attempt has superseded by now is left out of them.
    """
    statement = (
        select(MetricSegment)
        .where(MetricSegment.job_number == number, MetricSegment.id > after)
        .order_by(MetricSegment.id)
        .limit(limit)
    )
    counted = cuts(session, number)
    found = []
    for segment in session.scalars(statement):
        points = list(_counting(segment, counted))
        steps, values = [step for step, _ in points], [finite(value) for _, value in points]
        found.append(NewPoints(segment.id, segment.key, steps, values))
    return found


def _counting(segment: MetricSegment, counted: Mapping[UUID, int | None]) -> Iterator[Point]:
    """The points of a segment that no later attempt has superseded."""
    steps, values = unpack_segment(segment)
    last = counted.get(segment.attempt_id)
    return zip(steps[: len(steps) if last is None else bisect_right(steps, last)], values, strict=False)


def thin(points: Iterable[Point], limit: int) -> tuple[list[Point], bool]:
    """Choose at most ``limit`` (>= 5) of the points, in one pass: the first, the last, and from equal stretches between
    the lowest, the highest, and one that is not finite; and tell whether any was left out.

    A spike of one step is thus never lost, as it would be by taking every n-th point. Whenever there are too many
    stretches, neighbours become one.
    """
    walk = iter(points)
    stretches: list[list[Point]] = []
    ends: list[Point] = []
    width, count = 1, 0
    while part := list(itertools.islice(walk, width)):
        ends = [*(ends or part)[:1], part[-1]]
        stretches.append(_telling(part))
        count += len(stretches[-1])
        while count > (limit if width == 1 else limit - len(ends)):
            pairs = itertools.zip_longest(stretches[::2], stretches[1::2], fillvalue=list[Point]())
            stretches = [_telling(one + other) for one, other in pairs]
            width, count = 2 * width, sum(map(len, stretches))
    kept = {point[0]: point for point in itertools.chain(*stretches, ends)}
    return sorted(kept.values(), key=itemgetter(0)), width > 1


def _telling(part: list[Point]) -> list[Point]:
    """The lowest and the highest of some points, and one whose value is no finite number, as far as there are any."""
    if len(part) == 1:
        return part
    finite = [point for point in part if math.isfinite(point[1])]
    odd = [point for point in part if not math.isfinite(point[1])][:1]
    extremes = [min(finite, key=itemgetter(1)), max(finite, key=itemgetter(1))] if finite else []
    return sorted({point[0]: point for point in (*extremes, *odd)}.values(), key=itemgetter(0))


def finite(value: float) -> float | None:
    """The value; None where it is no finite number, which JSON cannot say."""
    return value if math.isfinite(value) else None
