"""What the planner is told of how long jobs take: spans, from what is known of each job. Pure."""

from collections.abc import Mapping

from stoker.jobs.forecast import Duration
from stoker.jobs.situation import Candidate, Running, Span


def span(duration: Duration) -> Span:
    """Three percentiles of a duration."""
    return Span(*(duration.quantile(share) for share in (0.1, 0.5, 0.9)))


class Known:
    """Durations by job number. One that started since is expected to take what is left of its own."""

    def __init__(self, lasts: Mapping[int, Duration], left: Mapping[int, Duration], now: float) -> None:
        """``lasts``: of waiting jobs, from their start; ``left``: of those that run, from ``now``, on."""
        self._lasts, self._left, self._now = lasts, left, now

    def of(self, job: Candidate, device: str) -> Span | None:  # noqa: ARG002 - like jobs ran where this one may
        """From a start to the end."""
        duration = self._lasts.get(job.number)
        return None if duration is None else span(duration)

    def left(self, running: Running, now: float) -> Span | None:
        """From now to the end."""
        if (rest := self._left.get(running.number)) is not None:
            return span(rest.after(now - self._now) if now > self._now else rest)
        whole = self._lasts.get(running.number)
        return None if whole is None else span(whole.after(now - running.placed_at))
