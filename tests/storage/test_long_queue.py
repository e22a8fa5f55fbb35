"""A queue that is too long to be read whole: its jobs are told the same, or that they are too far away to tell."""

import math
from dataclasses import replace

import pytest
from sqlalchemy import event, func, select, text, update

from stoker.jobs.accounts import Caller
from stoker.jobs.dispatch import Means, dispatch
from stoker.jobs.durations import Lasts, past_durations
from stoker.jobs.explaining import Why, foretell, read_queue, why
from stoker.jobs.models import Estimate, Job, User
from stoker.jobs.prospects import WHOLE, Foresight, foresee
from stoker.jobs.reads_jobs import view_job
from stoker.jobs.spec import parse_spec
from stoker.jobs.steering import set_held
from stoker.jobs.window import Demands, queue_window
from tests.support.queue import GPU, Queue, spec_document

LONG = 5  # jobs, of which a queue counts as too long to be read whole here
KINDS = text("SELECT shape, team_id, number FROM jobs")
ONE = {"cpus": 1, "memory": 10**8}
ON_GPU = ONE | {"device": "gpu"}


def told(queue: Queue, number: int, foresight: Foresight) -> Why:
    """What is told of a job, by `stoker why`; `stoker show` says the same."""
    with queue.factory() as session:
        found = why(session, session.get_one(Job, number), foresight)
        shown = view_job(session, caller(queue), number, foresight).reason
        session.rollback()
    assert shown is not None
    assert (shown.code, shown.sentence) == (found.code, found.sentence)
    return found


def caller(queue: Queue) -> Caller:
    """The one who submits, who is an administrator."""
    with queue.factory() as session:
        user = session.get_one(User, queue.user_id)
    return Caller(user.id, user.name, user.team_id, "vision", "admin", 1)


def full(queue: Queue) -> list[int]:
    """Jobs of three teams, one class each, of two sizes, for a worker that is taken and has room for one at a time."""
    incarnation = queue.worker(cpus=1)
    _, before = queue.running(incarnation, resources=ONE)  # one that has told how long such jobs take
    queue.finish(before, incarnation)
    queue.running(incarnation, resources=ONE)
    teams = [(queue.user_id, "normal"), (queue.join("nlp"), "high"), (queue.join("audio"), "low")]
    numbers = []
    for number in range(24):
        queue.user_id, priority = teams[number % 5 % 3]
        numbers.append(queue.submit(resources=ONE | {"memory": (1 + number % 2) * 10**8}, priority=priority))
    assert queue.dispatch() == []
    return numbers


def test_what_is_told_is_the_same_as_of_a_queue_that_is_read_whole(queue: Queue) -> None:
    numbers = full(queue)
    whole, long = Foresight(), Foresight(whole=LONG)
    for number in numbers:
        one, other = told(queue, number, whole), told(queue, number, long)
        assert (one.code, one.sentence, one.position) == (other.code, other.sentence, other.position)
        assert (one.ahead, one.helps, one.further, other.further) == (other.ahead, other.helps, False, False)
    assert {told(queue, number, long).code for number in numbers} == {"reserved", "cpus"}


def test_nobody_is_told_a_place_before_others_of_its_like(queue: Queue) -> None:
    """Also where the only places are kept for the first ones, and the job asked about stands far behind them."""
    incarnation = queue.worker(cpus=2)
    for _ in range(2):
        queue.running(incarnation, resources=ONE)
    first = [queue.submit(resources=ONE) for _ in range(12)]
    queue.join("nlp")
    second = [queue.submit(resources=ONE) for _ in range(12)]
    queue.dispatch()
    long = Foresight(whole=LONG)
    for numbers in (first, second):
        places = [told(queue, number, long).position for number in numbers]
        assert None not in places
        assert places == sorted(set(places)), "two have one place, or one has passed another"  # type: ignore[type-var]


def test_a_job_that_is_only_thought_of_stands_behind_all_of_its_like(queue: Queue) -> None:
    full(queue)
    spec = parse_spec(spec_document(resources=ONE))
    with queue.factory() as session:
        whole, long = (foretell(session, caller(queue), spec, one) for one in (Foresight(), Foresight(whole=LONG)))
    assert (whole.position, whole.code, whole.ahead) == (long.position, long.code, long.ahead)
    assert whole.position is not None
    assert whole.position > 8


def test_of_a_job_that_is_too_far_away_no_place_and_no_start_is_told(queue: Queue) -> None:
    last = full(queue)[-1]
    found = told(queue, last, Foresight(whole=LONG, budget_seconds=0.0))
    assert (found.code, found.position, found.further) == ("cpus", None, True)
    assert found.expected is not None
    assert (found.expected.start_at, found.expected.start_high_at, found.expected.end_at) == (None, None, None)


def test_a_job_that_nothing_can_start_stands_behind_those_that_start_and_no_others(queue: Queue) -> None:
    numbers = full(queue)
    queue.worker("away", cpus=4, lease_seconds=-1.0)  # or nobody could submit a job for four CPUs
    never = queue.submit(resources=ONE | {"cpus": 4}, priority="low")
    found = told(queue, never, Foresight(whole=LONG))
    assert (found.code, found.position, found.further) == ("cpus", len(numbers) + 1, False)
    assert sum(team.jobs for team in found.ahead) == len(numbers)


@pytest.mark.parametrize("budget_seconds", [0.0, math.inf])
def test_who_waits_for_a_worker_stands_behind_nobody(queue: Queue, budget_seconds: float) -> None:
    numbers = full(queue)
    queue.worker("away", devices=(GPU,), lease_seconds=-1.0)  # or nobody could submit a job for a GPU
    never = queue.submit(resources=ON_GPU, priority="low")
    for whole, position in ((LONG, None), (WHOLE, len(numbers) + 1)):
        found = told(queue, never, Foresight(whole=whole, budget_seconds=budget_seconds))
        assert found.position == position
        assert (found.code, found.ahead, found.further, found.expected) == ("no_gpu", [], False, None)
        assert found.helps == []


def test_the_queue_shows_those_that_start_next(queue: Queue) -> None:
    full(queue)
    with queue.factory() as session:
        whole = read_queue(session, caller(queue), Foresight(), 7)
        long = read_queue(session, caller(queue), Foresight(whole=LONG), 7)
    assert [item.number for item in long.items] == [item.number for item in whole.items]
    assert [item.why.position for item in long.items] == list(range(1, 8))
    assert (long.waiting, whole.waiting) == (24, 24)


def test_the_queue_shows_jobs_that_never_start_behind_those_that_do(queue: Queue) -> None:
    numbers = full(queue)
    queue.worker("away", devices=(GPU,), lease_seconds=-1.0)
    never = [queue.submit(resources=ON_GPU) for _ in range(3)]
    with queue.factory() as session:
        items = read_queue(session, caller(queue), Foresight(whole=LONG), 26).items
    assert {item.number for item in items[:24]} == set(numbers)
    assert [(item.number, item.why.code) for item in items[24:]] == [(number, "no_gpu") for number in never[:2]]


def test_a_team_whose_jobs_are_all_too_far_away_sees_those_whose_turn_is_next(queue: Queue) -> None:
    full(queue)
    held, own, later, moved = (queue.submit(resources=ONE, priority="high") for _ in range(4))
    with queue.factory() as session:
        set_held(session, held, True, actor="ada")
        session.execute(update(Job).where(Job.number == moved).values(own_order=-1))
        session.commit()
        member = replace(caller(queue), role="member")
        items = read_queue(session, member, Foresight(whole=LONG, budget_seconds=0.0), 4).items
        of_team = set(session.scalars(select(Job.number).where(Job.team_id == member.team_id)))
    assert [item.number for item in items][:3] == [moved, own, later]
    assert {(item.why.code, item.why.position, item.why.further) for item in items} == {("cpus", None, True)}
    assert items[3].number in of_team - {held}


def test_starts_are_foreseen_of_those_that_start_next(queue: Queue) -> None:
    full(queue)
    with queue.factory() as session:
        assert foresee(session, Foresight(whole=LONG)) == 24
        assert set(session.scalars(select(Estimate.position))) == set(range(1, 25))


def test_show_and_why_say_the_same_also_of_jobs_that_take_no_turns(queue: Queue) -> None:
    parent, held, backing_off, limit = queue.submit(), queue.submit(), queue.submit(), queue.submit()
    child = queue.submit(after=[parent])
    with queue.factory() as session:
        set_held(session, held, True, actor="ada")
        later = update(Job).where(Job.number == backing_off).values(not_before=func.now() + func.make_interval(0, 0, 1))
        session.execute(later)
        session.commit()
    numbers = (child, held, backing_off, limit)
    codes = [told(queue, number, Foresight()).code for number in numbers]
    assert codes == ["after", "held", "backing_off", "no_worker"]
    assert told(queue, child, Foresight()).sentence == f"starts after job {parent} (queued)"


@pytest.mark.parametrize("pieces", [1, 3])
def test_lengths_of_jobs_that_wait_are_read_many_at_once(queue: Queue, pieces: int) -> None:
    for _ in range(6):
        queue.submit()
    with queue.factory() as session:
        jobs = queue_window(session)
        lasts = Lasts(session, past_durations(session), jobs)
        asked: list[str] = []
        event.listen(queue.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        assert all(lasts[job.number].p50_seconds > 0 for job in jobs[::pieces])
        assert 10**6 not in lasts
    assert len(asked) == 2  # one for all of them, one for what is not there


def test_a_pass_that_asks_for_lengths_reads_those_of_all_that_it_read(queue: Queue) -> None:
    """Jobs that could run beside what is kept for a large one are asked how long they take."""
    queue.running(queue.worker(cpus=4), resources=ONE | {"cpus": 2})
    queue.submit(resources=ONE | {"cpus": 4}, priority="high")
    assert queue.dispatch() == []
    for cpus in (1, 1.1, 1.2, 1.3):
        queue.submit(resources=ONE | {"cpus": cpus})
    asked: list[str] = []
    event.listen(queue.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    with queue.factory() as session:
        assert dispatch(session, Means(estimator=Foresight().durations.estimates)).sent == ()
        session.rollback()
    assert len([statement for statement in asked if "latest_checkpoint_id LEFT JOIN attempts" in statement]) == 1


def test_demands_that_were_found_stay_when_another_thread_finds_more(queue: Queue) -> None:
    demands = Demands()
    queue.submit(resources=ONE)
    with queue.factory() as session:
        rows = session.execute(KINDS).all()
        before = demands.find(session, rows)
        queue.submit(resources=ONE | {"cpus": 2})
        more = demands.find(session, session.execute(KINDS).all())
        assert demands.find(session, rows) is more
    assert (len(before), len(more)) == (1, 2)
