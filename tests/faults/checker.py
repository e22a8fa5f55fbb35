"""Holds a history and a database against what is promised. Pure: facts in, violations out."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.evidence import AttemptFact, Evidence, JobFact, Outcome
from tests.faults.history import Entry

FINAL = {"succeeded", "failed", "cancelled"}
LOSSES_OF_POISON = 3  # the least after which a job may be suspected of killing its workers
FINAL_MOVES = {"succeed": 1, "fail": 1, "cancel": 1, "retry": -1}
NEXT = {  # what may follow a move in the life of a job; written down again here, not taken from the product
    None: {"place", "release", "cancel"},
    "release": {"place", "cancel"},
    "place": {"start", "requeue", "fail", "cancel"},
    "start": {"requeue", "succeed", "fail", "cancel"},
    "requeue": {"place", "cancel"},
    "retry": {"place", "cancel"},
    "succeed": set(),
    "fail": {"retry"},
    "cancel": {"retry"},
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was not kept."""

    promise: str
    job: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {f'job {self.job}: ' if self.job is not None else ''}{self.text}"


@dataclass(frozen=True, slots=True)
class Case:
    """All that a rule may look at."""

    history: Sequence[Entry]
    evidence: Evidence
    references: Mapping[str, Outcome]  # recipe -> what the undisturbed run came to

    def of(self, *kinds: str) -> Iterator[Entry]:
        """The notes of these kinds."""
        return (entry for entry in self.history if entry.kind in kinds)


def check(history: Sequence[Entry], evidence: Evidence, references: Mapping[str, Outcome]) -> list[Violation]:
    """Every violation of every promise."""
    case = Case(history, evidence, references)
    return [violation for rule in RULES for violation in rule(case)]


def nothing_lost(case: Case) -> Iterator[Violation]:
    """Every acknowledged job is there, in exactly one final state; one key is one job."""
    jobs = {job.number: job for job in case.evidence.jobs}
    numbers: dict[str, set[int]] = defaultdict(set)
    for entry in case.of("ack"):
        numbers[entry["key"]].add(entry["number"])
        if entry["number"] not in jobs:
            yield Violation("nothing_lost", entry["number"], "it was acknowledged and is in no table")
    for key, found in numbers.items():
        if len(found) > 1:
            yield Violation("one_job_per_key", min(found), f"key {key} was answered with jobs {sorted(found)}")
    rows = Counter(job.key for job in jobs.values() if job.key is not None)
    for key, count in rows.items():
        if count > 1:
            yield Violation("one_job_per_key", None, f"key {key} has {count} jobs")
    for job in jobs.values():
        if job.state not in FINAL:
            yield Violation("nothing_lost", job.number, f"it never ended: it is {job.state}")
        elif (ends := sum(FINAL_MOVES.get(move, 0) for move in job.moves)) != 1:
            yield Violation("one_final_state", job.number, f"it moved to a final state {ends} times")


def one_result(case: Case) -> Iterator[Violation]:
    """A succeeded job has one result and one set of predictions, by its attempt that succeeded; others have none."""
    for job in case.evidence.jobs:
        wanted = int(job.state == "succeeded")
        if (job.results, job.predictions) != (wanted, wanted):
            text = f"{job.state}, with {job.results} results and {job.predictions} sets of predictions"
            yield Violation("one_result", job.number, text)
        winners = [attempt.id for attempt in job.attempts if attempt.outcome == "succeeded"]
        if len(winners) != wanted or (wanted and job.result_attempt not in winners):
            yield Violation("one_result", job.number, f"{len(winners)} attempts succeeded; result of {winners}")


def explained_end(case: Case) -> Iterator[Violation]:
    """A job is cancelled only when somebody asked, and fails only by what the faults can do to it."""
    cancelled = {entry["number"] for entry in case.of("asked") if entry["what"] == "cancel"}
    for job in case.evidence.jobs:
        if job.state == "cancelled" and job.number not in cancelled:
            yield Violation("explained_end", job.number, "it was cancelled, and nobody had asked for that")
        if job.state == "failed":
            lost = sum(attempt.outcome in ("lost", "failed") for attempt in job.attempts)
            if job.failure != "suspected_poison" or lost < LOSSES_OF_POISON:
                text = f"it failed with {job.failure} after {lost} lost or failed attempts"
                yield Violation("explained_end", job.number, text)


def attempts_in_order(case: Case) -> Iterator[Violation]:
    """Attempts are numbered 1, 2, …; each move of a job is one that may follow the move before."""
    for job in case.evidence.jobs:
        ordinals = [attempt.ordinal for attempt in job.attempts]
        if ordinals != list(range(1, len(ordinals) + 1)):
            yield Violation("attempts_in_order", job.number, f"attempts are numbered {ordinals}")
        if (places := job.moves.count("place")) != len(ordinals):
            yield Violation("attempts_in_order", job.number, f"placed {places} times, with {len(ordinals)} attempts")
        for before, after in itertools.pairwise((None, *job.moves)):
            if after not in NEXT[before]:
                yield Violation("attempts_in_order", job.number, f"{after} after {before or 'nothing'}")
        for attempt in job.attempts:
            if attempt.state != "ended" and job.state in FINAL:
                yield Violation("attempts_in_order", job.number, f"attempt {attempt.ordinal} is {attempt.state}")


def fence(case: Case) -> Iterator[Violation]:
    """An attempt writes nothing after its end: no transaction that began after the commit of its end wrote for it."""
    for job in case.evidence.jobs:
        for attempt in job.attempts:
            if _wrote_late(attempt):
                yield Violation("fence", job.number, f"attempt {attempt.ordinal} wrote after it had ended")


def _wrote_late(attempt: AttemptFact) -> bool:
    if attempt.last_write_at is None or attempt.closed_at is None:
        return False
    return attempt.last_write_at > attempt.closed_at


def metrics_rise(case: Case) -> Iterator[Violation]:
    """After supersession, the steps of each metric strictly rise."""
    for job in case.evidence.jobs:
        for key, (steps, _) in job.outcome.series.items():
            for before, after in itertools.pairwise(steps):
                if after <= before:
                    yield Violation("metrics_rise", job.number, f"{key}: step {after} follows step {before}")
                    break


def checkpoints_whole(case: Case) -> Iterator[Violation]:
    """A checkpoint that has a row can be read, unless we have damaged it; damage is found, never resumed from."""
    flipped = {entry["checkpoint"] for entry in case.of("flip")}
    for job in case.evidence.jobs:
        for checkpoint in job.checkpoints:
            if checkpoint.id not in flipped and (checkpoint.reported or not checkpoint.readable):
                text = f"the checkpoint of step {checkpoint.step} has a row, and its bytes are not what they should be"
                yield Violation("checkpoints_whole", job.number, text)
        damaged = flipped & {checkpoint.id for checkpoint in job.checkpoints}
        # What was resumed from before the flip was whole: only attempts placed after it count.
        times = {entry["checkpoint"]: entry["database_seconds"] for entry in case.of("flip")}
        for attempt in job.attempts:
            source = attempt.resumed_from
            if source in damaged and attempt.stepped and (attempt.claimed_at or math.inf) > times[source]:
                text = f"attempt {attempt.ordinal} went on from checkpoint {source}, a bit of which was turned"
                yield Violation("damage_found", job.number, text)


def exact(case: Case) -> Iterator[Violation]:
    """A succeeded job ends with the weights, predictions and metrics of the undisturbed run, bit for bit."""
    for job in case.evidence.jobs:
        if job.state != "succeeded":
            continue
        reference = case.references.get(job.recipe)
        if reference is None:
            yield Violation("exact", job.number, f"there is no undisturbed run of {job.recipe}")
            continue
        for part in ("weights", "predictions"):
            if getattr(job.outcome, part) != getattr(reference, part):
                yield Violation("exact", job.number, f"its {part} differ from the undisturbed run's")
        if job.outcome.series != reference.series:
            yield Violation("exact", job.number, f"its metrics differ: {_difference(job, reference)}")


def _difference(job: JobFact, reference: Outcome) -> str:
    mine, theirs = job.outcome.series, reference.series
    if mine.keys() != theirs.keys():
        return f"{sorted(mine)} instead of {sorted(theirs)}"
    for key, points in mine.items():
        if points != theirs[key]:
            ours = list(zip(*points, strict=True))
            other = list(zip(*theirs[key], strict=True))
            at = next((i for i, pair in enumerate(zip(ours, other, strict=False)) if pair[0] != pair[1]), None)
            where = f"first at point {at}: {ours[at]}, not {other[at]}" if at is not None else "the rest is missing"
            return f"{key}: {len(ours)} points, {len(other)} expected; {where}"
    return "nothing"


def nothing_left(case: Case) -> Iterator[Violation]:
    """At the end no counter is taken, no lease held, no process left; no trainer outlives its worker."""
    for name, used in case.evidence.in_use.items():
        if used:
            yield Violation("nothing_left", None, f"{name} is still {used}")
    if case.evidence.leases:
        yield Violation("nothing_left", None, f"{case.evidence.leases} leases of attempts are still held")
    for entry in case.of("orphan", "left"):
        yield Violation("nothing_left", None, f"a process outlived what it belonged to: {entry.fields}")


def one_trainer(case: Case) -> Iterator[Violation]:
    """Two trainers of one job never compute at once."""
    for entry in case.of("overlap"):
        yield Violation("one_trainer", entry["job"], f"two trainers at {entry.at} s: {entry['pids']}")


def services_stand(case: Case) -> Iterator[Violation]:
    """No process ends by another's fault; the API refuses with 503 at most; limits in time are kept."""
    for entry in case.of("died"):
        yield Violation("services_stand", None, f"{entry['who']} ended by itself at {entry.at} s: {entry['fate']}")
    for entry in case.of("refused"):
        yield Violation("services_stand", None, f"a request was refused with {entry['status']} at {entry.at} s")
    for entry in case.of("answer", "ack"):
        if entry["status"] >= 500 and entry["status"] != 503:
            yield Violation("services_stand", None, f"the API answered {entry['status']} at {entry.at} s")
    for entry in case.of("late"):
        text = f"{entry['what']} took {entry['seconds']:.1f} s; promised are {entry['limit']:.1f} s"
        yield Violation("in_time", None, text)


RULES: tuple[Callable[[Case], Iterable[Violation]], ...] = (
    nothing_lost,
    one_result,
    explained_end,
    attempts_in_order,
    fence,
    metrics_rise,
    checkpoints_whole,
    exact,
    nothing_left,
    one_trainer,
    services_stand,
)
