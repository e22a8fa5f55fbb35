"""Sharing in a real database: what is decided is written, obeyed and used; no two dispatchers promise twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update

from stoker.errors import InvalidInput, Unrunnable
from stoker.jobs.attempts import Ending, first_step
from stoker.jobs.capacity import live_fleet
from stoker.jobs.decisions import make_room
from stoker.jobs.dispatch import Means, dispatch, read_situation
from stoker.jobs.fleet import OfferedDevice
from stoker.jobs.lanes import LANES_SQL, SHAPES_SQL, Lanes
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Attempt, Device, Event, Job, Pool, Reservation, Usage, Worker
from stoker.jobs.placement import LeastLoss
from stoker.jobs.planner import plan
from stoker.jobs.present import Runs, shares
from stoker.jobs.situation import Preemption
from stoker.jobs.window import WINDOW, WINDOW_SQL, queue_window
from tests.support.queue import Queue

ONE_GPU = {"device": "gpu", "memory": 10**8, "cpus": 1}


def devices(count: int) -> tuple[OfferedDevice, ...]:
    """GPUs for a worker."""
    return tuple(OfferedDevice(f"GPU-{number}", number, "H100", 80 * 10**9) for number in range(count))


def run_all(queue: Queue, incarnation: UUID) -> list[int]:
    """Dispatch, and claim what was placed; returns the jobs."""
    placed = queue.dispatch()
    for outgoing in placed:
        queue.claim(outgoing.attempt_id, incarnation)
    return sorted(outgoing.job_number for outgoing in placed)


def test_what_a_team_lent_comes_back_to_the_job_it_was_freed_for(queue: Queue) -> None:
    incarnation = queue.worker(cpus=16, devices=devices(2))
    lent = [queue.submit(resources=ONE_GPU) for _ in range(2)]
    assert run_all(queue, incarnation) == lent
    queue.join("owner", guaranteed=1)
    mine = queue.submit(resources=ONE_GPU)
    assert queue.dispatch() == []
    with queue.factory() as session:
        victim = session.scalars(select(Attempt).where(Attempt.preempt_requested_at.is_not(None))).one()
        assert victim.preempt_for == mine
        event = session.scalars(select(Event).where(Event.name == "preempt_requested")).one()
        assert event.reason.startswith(f"makes room for job {mine}, which its team owner is guaranteed")
        assert session.scalars(select(Reservation.job_number)).all() == [mine]
    assert queue.dispatch() == []  # one set of victims
    urgent = queue.submit(resources=ONE_GPU, priority="high")
    queue.finish(victim.id, incarnation, Ending(Outcome.PREEMPTED, ran_seconds=1.0))
    assert run_all(queue, incarnation) == [mine]
    assert {queue.job(urgent).state, queue.job(victim.job_number).state} == {"queued"}
    assert queue.job(victim.job_number).preempted_at is not None
    with queue.factory() as session:
        assert session.scalars(select(Reservation.job_number).where(Reservation.job_number == mine)).all() == []


def test_a_victim_that_somebody_is_ending_is_not_waited_for(queue: Queue) -> None:
    incarnation = queue.worker(cpus=16, devices=devices(1))
    number, attempt = queue.running(incarnation, resources=ONE_GPU)
    waiting = queue.submit(resources=ONE_GPU)
    asked = [Preemption(number, waiting, "makes room")]
    with queue.factory() as other, queue.factory() as session:
        other.execute(select(Attempt.id).where(Attempt.id == attempt).with_for_update())
        assert make_room(session, asked) == {waiting}
        other.rollback()
        assert make_room(session, [*asked, Preemption(waiting, waiting, "is not running")]) == {waiting}
        assert make_room(session, asked) == set()
        session.rollback()
        session.execute(update(Job).where(Job.number == waiting).values(held=True))
        assert make_room(session, asked) == {waiting}  # nobody leaves for a job that was held meanwhile


def test_what_was_used_is_charged_and_decays(queue: Queue) -> None:
    incarnation = queue.worker(cpus=16, devices=devices(2))
    for _ in range(2):
        _, attempt = queue.running(incarnation, resources=ONE_GPU)
        with queue.factory() as session:
            hour_ago = func.now() - timedelta(hours=1)
            session.execute(update(Attempt).where(Attempt.id == attempt).values(claimed_at=hour_ago))
            session.commit()
        queue.finish(attempt, incarnation)
    with queue.factory() as session:
        used = session.scalars(select(Usage)).one()
        assert used.device_seconds == pytest.approx(7200, rel=0.01)
        session.execute(update(Usage).values(counted_at=func.now() - timedelta(days=7)))
        assert shares(session).teams[used.team_id].used == pytest.approx(3600, rel=0.01)


def submit_for(queue: Queue, users: list[int], count: int) -> None:
    """Jobs of three shapes and three priorities, of several users."""
    shapes = [{"cpus": cpus, "memory": 10**8} for cpus in (0.5, 1, 3)]
    for number in range(count):
        queue.user_id = users[number % 7 % len(users)]
        queue.submit(resources=shapes[number % 3], priority=("low", "normal", "high")[number % 5 % 3])


@pytest.mark.parametrize("depth", [1, 3, WINDOW])
def test_the_window_gives_the_placements_of_the_whole_queue(queue: Queue, depth: int) -> None:
    users = [queue.user_id, queue.join("nlp"), queue.join("audio", guaranteed=1)]
    submit_for(queue, users, 36)
    queue.worker(cpus=7)
    queue.worker("two", cpus=4)
    with queue.factory() as session:
        whole = plan(read_situation(session, queue_window(session, 1000), Means()), LeastLoss())
    placed: dict[int, str] = {}
    more = True
    while more:
        with queue.factory() as session:
            done = dispatch(session, depth=depth)
            session.commit()
        more = done.more
        placed |= {outgoing.job_number: outgoing.worker for outgoing in done.sent}
    names = {1: "one", 2: "two"}
    assert placed == {found.number: names[found.spot.node] for found in whole.placements}


def test_the_window_is_read_by_index_alone(queue: Queue) -> None:
    submit_for(queue, [queue.user_id], 30)
    with queue.factory() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))  # a table of 30 rows is quicker read whole
        session.execute(text("SET LOCAL enable_sort = off"))
        rows = session.execute(text(f"EXPLAIN {WINDOW_SQL}"), {"rows": 5})
        shown = "\n".join(str(row[0]) for row in rows)
    assert shown.count("using ix_jobs_turn") == 3
    assert "Sort" not in shown


def test_a_pass_finds_what_there_is_by_index_alone(queue: Queue) -> None:
    submit_for(queue, [queue.user_id], 30)
    with queue.factory() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_sort = off"))
        for read, index in ((LANES_SQL, "ix_jobs_lanes"), (SHAPES_SQL, "ix_jobs_shapes")):
            rows = session.execute(text(f"EXPLAIN {read}"), {"teams": [1]} if ":teams" in read else {})
            shown = "\n".join(str(row[0]) for row in rows)
            assert shown.count(f"using {index}") == 2
            assert "Sort" not in shown


def test_dispatchers_at_once_promise_nothing_twice_whatever_else_happens(queue: Queue) -> None:
    incarnation = queue.worker(cpus=64, devices=devices(4))
    users = [queue.user_id, queue.join("owner", guaranteed=2)]
    for number in range(24):
        queue.user_id = users[number % 2]
        queue.submit(resources=ONE_GPU)

    def work(turn: int) -> int:
        placed = queue.dispatch()
        for outgoing in placed:
            queue.claim(outgoing.attempt_id, incarnation)
            if turn % 2:
                queue.finish(outgoing.attempt_id, incarnation)
        return len(placed)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(24))) >= 4
    with queue.factory() as session:
        live = select(func.count()).where(Attempt.state != "ended")
        assert queue.used()[3] == 1000 * session.scalar(live) <= 4000  # type: ignore[operator]
        doubled = select(Attempt.job_number).where(Attempt.state != "ended").group_by(Attempt.job_number)
        assert session.scalars(doubled.having(func.count() > 1)).all() == []


def test_a_worker_that_comes_back_with_fewer_devices_than_it_runs(queue: Queue) -> None:
    first = queue.worker(cpus=16, devices=devices(2))
    numbers = [queue.running(first, resources=ONE_GPU)[0] for _ in range(2)]
    queue.expire(first)
    second = queue.worker(cpus=16, devices=devices(1))
    assert {queue.job(number).state for number in numbers} == {"queued"}
    with queue.factory() as session:
        assert sorted(session.scalars(select(Device.capacity_milli))) == [0, 1000]
        session.execute(update(Job).values(not_before=None))
        session.commit()
    assert run_all(queue, second) == numbers[:1]


def test_parts_of_a_gpu_are_taken_only_where_a_pool_allows_them(queue: Queue) -> None:
    part = ONE_GPU | {"gpus": 0.3}
    incarnation = queue.worker(cpus=16, devices=devices(1))
    with pytest.raises(Unrunnable, match="no pool allows parts"):
        queue.submit(resources=part)
    with queue.factory() as session:
        session.execute(update(Pool).values(fractions=True))
        session.commit()
    mine = [queue.submit(resources=part) for _ in range(2)]
    with pytest.raises(InvalidInput, match="a whole number up to 1024, or for a part of one"):
        queue.submit(resources=ONE_GPU | {"gpus": 2.3})
    assert run_all(queue, incarnation) == mine
    assert queue.used()[3] == 600
    with queue.factory() as session:
        assert [running.demand.gpu_milli for running in Runs().read(session)] == [300, 300]
        assert [unit.team for node in live_fleet(session) for unit in node.units] == [1]
    queue.join("other")
    other = queue.submit(resources=part)
    assert queue.dispatch() == []
    assert queue.job(other).state == "queued"


def test_jobs_go_where_their_data_is(queue: Queue) -> None:
    incarnation, _ = queue.worker("one"), queue.worker("two")
    _, attempt = queue.running(incarnation)
    with queue.factory() as session:
        where = session.get_one(Attempt, attempt).worker_id
        live = {node.id: node for node in live_fleet(session)}
        first_step(session, attempt, session.get_one(Attempt, attempt).incarnation_id, "cpu-x")
        session.commit()
        assert not live[where].data
        assert {node.id for node in live_fleet(session) if node.data == {"digits"}} == {where}
        assert session.get_one(Worker, where).pool == "default"


def test_a_job_that_went_on_elsewhere_has_a_shape_of_its_own(queue: Queue) -> None:
    incarnation = queue.worker()
    number, attempt = queue.running(incarnation)
    before = queue.job(number).shape
    with queue.factory() as session:
        first_step(session, attempt, incarnation, "cpu-x")
        session.commit()
    assert queue.job(number).shape != before
    queue.finish(attempt, incarnation, Ending(Outcome.PREEMPTED, ran_seconds=1.0))
    with queue.factory() as session:
        (job,) = queue_window(session)
        assert job.demand.machine == "cpu-x"


def test_one_that_made_room_counts_as_old_as_what_stands_behind_the_window(queue: Queue) -> None:
    numbers = [queue.submit() for _ in range(3)]
    with queue.factory() as session:
        days = func.now() - timedelta(days=3)
        session.execute(update(Job).where(Job.number > numbers[0]).values(queued_at=days))
        lanes = Lanes(session, depth=1)
        (first,) = lanes.read(lanes.lanes)
        whole = queue_window(session)
    assert (first.number, first.more, first.queued_at) == (numbers[0], True, whole[1].queued_at)
    assert whole[0].queued_at > whole[1].queued_at
