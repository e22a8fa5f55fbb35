"""What is known of a waiting job, as a person says it: its place, who is before it, when it starts."""

from datetime import UTC, datetime
from typing import Any

NO_TURN = frozenset({"succeeded", "failed", "cancelled", "running", "placed"})  # codes of jobs that do not wait


def announced(why: dict[str, Any], now: datetime | None = None) -> str:
    """One line: ``#3 in queue, starts in about 6 min (behind 2 jobs of team nlp)``."""
    place, starts = f"#{why['position']} in queue" if why.get("position") else "", starts_in(why, now)
    if why.get("further") and (behind := behind_whom(why)):
        place = f"behind {behind}"
    if place and starts:
        behind = behind_whom(why)
        return f"{place}, starts {starts}" + (f" (behind {behind})" if behind else "")
    sentence = why.get("sentence") or ""
    return f"{place}: {sentence}" if place else sentence


def starts_in(why: dict[str, Any], now: datetime | None = None) -> str:
    """``at once``, ``in about 6 min``; empty where nobody can tell."""
    seconds = _seconds((why.get("expected") or {}).get("start_at"), now)
    if seconds is None or why.get("code") in NO_TURN:
        return ""
    return "at once" if seconds < 15 else f"in about {spoken(seconds)}"


def range_of(why: dict[str, Any], now: datetime | None = None) -> str:
    """``in about 6 min, most likely within 4 to 11 min``; empty where nobody can tell."""
    starts, expected = starts_in(why, now), why.get("expected") or {}
    low, high = (_seconds(expected.get(name), now) for name in ("start_low_at", "start_high_at"))
    if not starts or starts == "at once" or low is None:
        return starts
    if high is None:
        return f"{starts}, not before {spoken(low)}"
    return f"{starts}, most likely between {spoken(low)} and {spoken(high)}"


def behind_whom(why: dict[str, Any]) -> str:
    """``2 jobs of team nlp``, ``more than 5 jobs: 3 of team nlp, 2 of team vision``; empty: nobody."""
    ahead = why.get("ahead") or []
    count = sum(item["jobs"] for item in ahead)
    if not count:
        return ""
    jobs = ("more than " if why.get("further") else "") + ("1 job" if count == 1 else f"{count} jobs")
    if len(ahead) == 1:
        return f"{jobs} of team {ahead[0]['team']}"
    return f"{jobs}: " + ", ".join(f"{item['jobs']} of team {item['team']}" for item in ahead[:4])


def spoken(seconds: float) -> str:
    """``40 s``, ``6 min``, ``2.5 h``, ``3 days``."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h".replace(".0 h", " h")
    return f"{round(seconds / 86400)} days"


def _seconds(at: str | None, now: datetime | None) -> float | None:
    return None if not at else (datetime.fromisoformat(at) - (now or datetime.now(UTC))).total_seconds()


def seconds_until(at: str | None) -> float | None:
    """Seconds until a time of the API; None without one."""
    return _seconds(at, None)
