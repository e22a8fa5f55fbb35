"""What a run comes to, as text for people."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.faults import phases
from tests.faults.checker import Violation
from tests.faults.evidence import Evidence
from tests.faults.history import Entry

SHOWN = 40  # violations


def say(text: str) -> None:
    """One line for whoever watches, at once."""
    os.write(1, f"{text}\n".encode())


def fault_table(history: Iterable[Entry], numbers: dict[str, str]) -> list[str]:
    """How often each fault was injected, with its numbers in the catalogue."""
    entries = list(history)
    done = Counter(entry["name"] for entry in entries if entry.kind == "fault")
    skipped = {entry["name"]: entry["why"] for entry in entries if entry.kind == "skipped"}
    lines = []
    for name in sorted(numbers, key=lambda fault: (_first_number(numbers[fault]), fault)):
        note = f"   skipped: {skipped[name]}" if name in skipped else ""
        lines.append(f"  {numbers[name]:<14} {name:<24} {done[name]:>5}{note}")
    return lines


def _first_number(numbers: str) -> int:
    digits = "".join(letter if letter.isdigit() else " " for letter in numbers).split()
    return int(digits[0]) if digits else 1000


def phase_table(history: Iterable[Entry]) -> list[str]:
    """How many attempts were killed in each phase."""
    found = phases.count(history)
    return [f"  {found[phase]:>5}  {phase:<28} {meaning}" for phase, meaning in phases.PHASES.items()]


def jobs_line(evidence: Evidence) -> str:
    """How the jobs ended, and in how many attempts."""
    states = Counter(job.state for job in evidence.jobs)
    attempts = sum(len(job.attempts) for job in evidence.jobs)
    outcomes = Counter(attempt.outcome or attempt.state for job in evidence.jobs for attempt in job.attempts)
    ends = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    ways = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{len(evidence.jobs)} jobs: {ends}; {attempts} attempts: {ways}"


def submit_line(history: Iterable[Entry]) -> str:
    """How long the API took to accept jobs, faults and all."""
    took = sorted(entry["ms"] for entry in history if entry.kind == "ack")
    if not took:
        return "no job was accepted"
    return f"accepting a job took {took[len(took) // 2]:.0f} ms (median), {took[-1]:.0f} ms (worst of {len(took)})"


def verdicts(violations: Sequence[Violation], missed: dict[str, int]) -> list[str]:
    """What went wrong, one line each; empty when nothing did."""
    lines = [f"  VIOLATED {violation}" for violation in violations[:SHOWN]]
    if len(violations) > SHOWN:
        lines.append(f"  … and {len(violations) - SHOWN} more")
    lines += [f"  TOO FEW {phase}: {hits} hits, at least {phases.LEAST} are needed" for phase, hits in missed.items()]
    return lines
