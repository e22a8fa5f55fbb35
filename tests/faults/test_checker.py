"""The checker, on small invented runs: silent where all promises were kept, and red for each one that was not."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import checker, phases, schedule
from tests.faults.checker import check
from tests.faults.evidence import AttemptFact, CheckpointFact, Evidence, JobFact, Outcome
from tests.faults.history import Entry, History, as_line, parse

REFERENCE = Outcome("w" * 64, "p" * 64, {"loss": ((10, 20, 30), (3.0, 2.0, 1.0))})
FIRST = AttemptFact("a1", 1, "ended", "lost", claimed_at=2.0, closed_at=5.0, stepped=True, last_write_at=4.0)
SECOND = AttemptFact("a2", 2, "ended", "succeeded", claimed_at=7.0, closed_at=9.0, resumed_from=1, stepped=True)
WHOLE = CheckpointFact(1, 10, readable=True, reported=False)
LIFE = ("place", "start", "requeue", "place", "start", "succeed")
JOB = JobFact(7, "small", "k7", "succeeded", None, LIFE, 1, 1, "a2", REFERENCE, (FIRST, SECOND), (WHOLE,))
ACK = Entry(0.1, "ack", {"key": "k7", "number": 7, "status": 201, "ms": 3.0})


def entry(kind: str, **fields: Any) -> Entry:
    return Entry(1.0, kind, fields)


def broken(
    *history: Entry, references: Mapping[str, Outcome] | None = None, in_use: Mapping[str, int] | None = None,
    leases: int = 0, jobs: tuple[JobFact, ...] | None = None, **changed: Any,
) -> set[str]:  # fmt: skip
    """The promises that a run broke which differs from a good one by these changes."""
    evidence = Evidence(jobs if jobs is not None else (replace(JOB, **changed),), in_use or {}, leases)
    known = {"small": REFERENCE} if references is None else references
    return {violation.promise for violation in check([ACK, *history], evidence, known)}


def test_a_run_that_kept_all_promises_is_green() -> None:
    assert broken() == set()
    assert broken(in_use={"worker one: attempts": 0}) == set()


def test_a_cancelled_job_is_green_if_somebody_asked() -> None:
    ended = replace(SECOND, outcome="cancelled")
    fields: dict[str, Any] = {
        "state": "cancelled", "results": 0, "predictions": 0, "result_attempt": None, "attempts": (FIRST, ended),
        "moves": (*LIFE[:-1], "cancel"),
    }  # fmt: skip
    assert broken(entry("asked", what="cancel", number=7), **fields) == set()
    assert broken(entry("asked", what="preempt", number=7), **fields) == {"explained_end"}


def test_an_acknowledged_job_that_is_nowhere_is_lost() -> None:
    assert broken(jobs=()) == {"nothing_lost"}


def test_a_job_that_never_ends_is_lost() -> None:
    assert "nothing_lost" in broken(state="running")


def test_a_second_final_state_is_found() -> None:
    assert broken(moves=(*LIFE, "fail")) == {"one_final_state", "attempts_in_order"}
    retried: dict[str, Any] = {"moves": (*LIFE[:3], "cancel", "retry", *LIFE[3:])}
    assert broken(**retried) == set()


def test_two_jobs_for_one_key_are_found_in_answers_and_in_tables() -> None:
    again = replace(ACK, fields=ACK.fields | {"number": 8})
    assert "one_job_per_key" in broken(again, jobs=(JOB, replace(JOB, number=8)))
    assert "one_job_per_key" in broken(jobs=(JOB, replace(JOB, number=8)))


@pytest.mark.parametrize("changed", [{"results": 2}, {"results": 0}, {"predictions": 0}, {"result_attempt": "a1"}])
def test_anything_but_one_result_is_found(changed: dict[str, Any]) -> None:
    assert broken(**changed) == {"one_result"}


def test_two_attempts_that_succeeded_are_found() -> None:
    assert broken(attempts=(replace(FIRST, outcome="succeeded"), SECOND)) == {"one_result"}


def test_a_failure_that_no_fault_explains_is_found() -> None:
    fields: dict[str, Any] = {"state": "failed", "results": 0, "predictions": 0, "result_attempt": None}
    lost = [replace(FIRST, id=f"a{n}", ordinal=n) for n in (1, 2, 3)]
    moves = ("place", "start", "requeue") * 2 + ("place", "start", "fail")
    thrice: dict[str, Any] = fields | {"attempts": tuple(lost), "moves": moves}
    assert broken(**thrice, failure="suspected_poison") == set()
    assert broken(**thrice, failure="user_error") == {"explained_end"}
    assert broken(**thrice | {"attempts": tuple(lost[:2]), "moves": moves[3:]}, failure="suspected_poison") == {
        "explained_end"
    }


def test_attempts_out_of_order_are_found() -> None:
    assert broken(attempts=(FIRST, replace(SECOND, ordinal=3))) == {"attempts_in_order"}
    assert broken(attempts=(SECOND,)) == {"attempts_in_order"}
    assert broken(attempts=(replace(FIRST, state="running", closed_at=None), SECOND)) == {"attempts_in_order"}


@pytest.mark.parametrize("moves", [("place", "start", "place", "start", "succeed"), ("place", "place", "succeed")])
def test_a_move_that_may_not_follow_is_found(moves: tuple[str, ...]) -> None:
    assert broken(moves=moves) == {"attempts_in_order"}


def test_a_write_after_the_end_of_an_attempt_is_found() -> None:
    assert broken(attempts=(replace(FIRST, last_write_at=5.5), SECOND)) == {"fence"}


def test_a_step_that_comes_twice_is_found() -> None:
    twice = Outcome(REFERENCE.weights, REFERENCE.predictions, {"loss": ((10, 20, 20), (3.0, 2.0, 2.0))})
    assert broken(outcome=twice, references={"small": twice}) == {"metrics_rise"}


def test_a_checkpoint_without_its_bytes_is_found() -> None:
    assert broken(checkpoints=(replace(WHOLE, readable=False),)) == {"checkpoints_whole"}
    assert broken(checkpoints=(replace(WHOLE, reported=True),)) == {"checkpoints_whole"}


def test_damage_of_our_own_must_be_noticed() -> None:
    before, after = entry("flip", checkpoint=1, database_seconds=6.5), entry("flip", checkpoint=1, database_seconds=8)
    damaged = (replace(WHOLE, readable=False),)
    assert broken(before, checkpoints=damaged) == {"damage_found"}
    assert broken(after, checkpoints=damaged) == set()  # the attempt had read it before
    elsewhere = replace(SECOND, resumed_from=2)
    assert broken(before, checkpoints=(replace(damaged[0], reported=True),), attempts=(FIRST, elsewhere)) == set()


@pytest.mark.parametrize(
    "other",
    [
        Outcome("x" * 64, "p" * 64, REFERENCE.series),
        Outcome(None, "p" * 64, REFERENCE.series),
        Outcome("w" * 64, "x" * 64, REFERENCE.series),
        Outcome("w" * 64, "p" * 64, {"loss": ((10, 20, 30), (3.0, 2.0, 1.0000000000000002))}),
        Outcome("w" * 64, "p" * 64, {"loss": ((10, 20), (3.0, 2.0))}),
        Outcome("w" * 64, "p" * 64, {}),
    ],
)
def test_any_difference_from_the_undisturbed_run_is_found(other: Outcome) -> None:
    assert broken(outcome=other) == {"exact"}


def test_a_job_without_an_undisturbed_run_is_not_taken_for_right() -> None:
    assert broken(references={}) == {"exact"}


def test_what_is_left_over_is_found() -> None:
    assert broken(in_use={"worker one: attempts": 1}) == {"nothing_left"}
    assert broken(leases=1) == {"nothing_left"}
    assert broken(entry("left", pid=5, command="trainer")) == {"nothing_left"}
    assert broken(entry("orphan", pid=5, title="job 7")) == {"nothing_left"}


def test_two_trainers_at_once_are_found() -> None:
    assert broken(entry("overlap", job=7, pids=[5, 6])) == {"one_trainer"}


def test_a_service_that_fell_over_is_found() -> None:
    assert broken(entry("died", who="worker one", fate="exit code 1")) == {"services_stand"}
    assert broken(entry("refused", key="k", status=422)) == {"services_stand"}
    assert broken(entry("answer", what="cancel", status=500, ms=1.0)) == {"services_stand"}
    assert broken(entry("answer", what="cancel", status=503, ms=1.0)) == set()
    assert broken(entry("late", what="SIGTERM", seconds=20.0, limit=11.0)) == {"in_time"}


def test_every_rule_was_seen_red_above() -> None:
    assert len(checker.RULES) == 11  # one more rule needs one more test


def test_a_history_reads_as_it_was_written() -> None:
    history = History()
    history.note("hit", phase="placed", job=1, attempt="a", victim="worker one")
    assert list(parse(map(as_line, history.entries))) == history.entries
    with pytest.raises(ValueError, match="no line of a history"):
        list(parse(["[]"]))


def test_a_phase_that_is_hit_too_seldom_is_named() -> None:
    hits = [entry("hit", phase=phase) for phase in phases.PHASES for _ in range(phases.LEAST)]
    assert phases.missed(hits) == {}
    assert phases.missed(hits[1:]) == {"placed": phases.LEAST - 1}
    assert phases.missed([]) == dict.fromkeys(phases.PHASES, 0)


def test_a_schedule_follows_its_seed_and_leaves_no_fault_out() -> None:
    faults = [f"fault-{number}" for number in range(20)]
    first = schedule.plan(7, faults, 30, 1.0)
    assert first == schedule.plan(7, faults, 30, 1.0)
    assert first != schedule.plan(8, faults, 30, 1.0)
    assert {planned.fault for planned in first} == set(faults)
    assert len(schedule.plan(7, faults, 5, 1.0)) == 5
