"""Jobs that are still to be submitted: what past days brought comes again, each day by itself. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from stoker.jobs.forecast import Duration
from stoker.jobs.situation import NEW, Candidate
from stoker.jobs.timeline import Timeline

DAY_SECONDS = 86_400.0
DAYS = 7  # that may come again: weekends are among them


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job that was submitted on a past day."""

    job: Candidate
    after_seconds: float  # since its day began; days begin at the time of day that it is now
    lasts: Duration


Day = Sequence[Arrival]


def past_days(jobs: Iterable[tuple[Candidate, Duration]], now: float, since: float) -> list[Day]:
    """What was submitted in each of the last days, yesterday first; none of a day that is not known whole.

    Args:
        jobs: As they were queued, and how long such jobs run.
        now: Seconds, of the same clock as ``queued_at``.
        since: From when on all jobs are known.
    """
    days: list[list[Arrival]] = [[] for _ in range(min(DAYS, int((now - since) // DAY_SECONDS)))]
    for job, lasts in jobs:
        ago = int((now - job.queued_at) // DAY_SECONDS)
        if 0 <= ago < len(days):
            days[ago].append(Arrival(job, job.queued_at - now + (ago + 1) * DAY_SECONDS, lasts))
    return list(days)


def begin(day: Day, line: Timeline, lasts: dict[int, Duration]) -> None:
    """Let a day come again in simulated time, over and over; ``lasts`` learns how long its jobs run."""
    numbers = count(NEW + 1)

    def dawn(now: float) -> None:
        for arrival in day:
            job = replace(arrival.job, number=next(numbers))
            lasts[job.number] = arrival.lasts
            line.at(now + arrival.after_seconds, partial(line.submit, job))
        line.at(now + DAY_SECONDS, partial(dawn, now + DAY_SECONDS))

    if day:
        dawn(line.now)
