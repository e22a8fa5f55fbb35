"""What is shown of metrics, logs, checkpoints and lists: cut, thinned and paged without loss."""

import math
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import InvalidInput
from stoker.jobs import predictions, reads_metrics, reads_records
from stoker.jobs.accounts import bootstrap
from stoker.jobs.attempts import Ending
from stoker.jobs.database import connect, sessions
from stoker.jobs.failures import Failure
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import Job, LogChunk
from stoker.jobs.pages import cursor, position
from stoker.jobs.reads_metrics import thin
from tests.support.finished_job import FakeWorker, submit

Factory = sessionmaker[Session]


@pytest.fixture
def factory(database_url: str) -> Iterator[Factory]:
    engine = connect(database_url)
    made = sessions(engine)
    with made() as session:
        bootstrap(session)
        session.commit()
    yield made
    engine.dispose()


def points(values: list[float]) -> list[tuple[int, float]]:
    return list(enumerate(values, start=1))


@given(st.lists(st.floats(allow_nan=True) | st.integers(0, 9).map(float), max_size=400), st.integers(5, 60))
@example([1.0, math.nan, 5.0, *[3.0] * 40], 5)
@example([1.0, math.inf, 5.0, 9.0, -math.inf, *[3.0] * 40], 6)
def test_thinned_points_keep_ends_and_extremes(values: list[float], limit: int) -> None:
    found = points(values)
    kept, thinned = thin(iter(found), limit)
    assert len(kept) <= limit
    assert thinned is (len(kept) < len(found))
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    assert set(map(repr, kept)) <= set(map(repr, found))
    if found:
        assert (kept[0][0], kept[-1][0]) == (found[0][0], found[-1][0])
        shown = [value for _, value in kept]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            assert {min(finite), max(finite)} <= set(shown)
        assert all(map(math.isfinite, shown)) is (len(finite) == len(values))


def test_a_spike_survives_thinning(factory: Factory) -> None:
    number = submit(factory, "admin")
    worker = FakeWorker.start(factory)
    values = [1.0] * 10_000
    values[7_654] = 99.0
    worker.batch(worker.claim(), metrics={"loss": (range(1, 10_001), values)})
    with factory() as session:
        loss = reads_metrics.read_metrics(session, number).metrics["loss"]
    assert loss.downsampled
    assert len(loss.steps) <= reads_metrics.MAX_POINTS
    assert (loss.steps[0], loss.steps[-1]) == (1, 10_000)
    assert loss.values[loss.steps.index(7_655)] == 99.0


def test_what_a_resumed_attempt_does_again_replaces_what_was(factory: Factory) -> None:
    number = submit(factory, "admin", max_retries=1)
    worker = FakeWorker.start(factory)
    first = worker.claim()
    worker.batch(first, metrics={"loss": ([1, 2, 3, 4], [4.0, 3.0, 99.0, 98.0])})
    worker.checkpoint(first, b"state", 2)
    worker.finish(first, Ending(Outcome.PREEMPTED))
    second = worker.claim()
    worker.batch(second, metrics={"loss": ([3, 4], [2.0, math.nan])})
    with factory() as session:
        loss = reads_metrics.read_metrics(session, number).metrics["loss"]
    assert (loss.steps, loss.values) == ([1, 2, 3, 4], [4.0, 3.0, 2.0, None])


def test_news_leave_out_what_a_resumed_attempt_did_again(factory: Factory) -> None:
    number = submit(factory, "admin", max_retries=1)
    worker = FakeWorker.start(factory)
    first = worker.claim()
    worker.checkpoint(first, b"state", 2)
    worker.batch(first, metrics={"loss": ([1, 2, 3], [4.0, 3.0, 99.0])})
    worker.batch(first, metrics={"loss": ([4, 5], [98.0, 97.0])})
    worker.finish(first, Ending(Outcome.PREEMPTED))
    worker.batch(worker.claim(), metrics={"loss": ([3, 4], [2.0, 1.0])})
    with factory() as session:
        news = reads_metrics.new_points(session, number, 0, 10)
        rest = reads_metrics.new_points(session, number, news[0].segment_id, 10)
    assert [(one.steps, one.values) for one in news] == [([1, 2], [4.0, 3.0]), ([], []), ([3, 4], [2.0, 1.0])]
    assert rest == news[1:]


def test_a_long_job_is_thinned_while_it_is_read(factory: Factory) -> None:
    number = submit(factory, "admin")
    worker = FakeWorker.start(factory)
    claimed = worker.claim()
    for start in range(0, 100_000, 1000):
        steps = range(start, start + 1000)
        worker.batch(claimed, metrics={key: (steps, [float(step % 997) for step in steps]) for key in ("a", "b")})
    with factory() as session:
        tracemalloc.start()
        found = reads_metrics.read_metrics(session, number).metrics
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    for series in found.values():
        assert (series.steps[0], series.steps[-1], series.downsampled) == (0, 99_999, True)
        assert 500 <= len(series.steps) <= reads_metrics.MAX_POINTS
    assert most < 10_000_000  # 200,000 points as tuples would take twice as much


def test_the_best_checkpoint_is_that_of_the_highest_validation_accuracy(factory: Factory) -> None:
    number = submit(factory, "admin", checkpoint={"keep_latest": 2, "keep_best": 1})
    worker = FakeWorker.start(factory)
    claimed = worker.claim()
    made = [
        worker.checkpoint(claimed, b"%d" % step, step, validation_accuracy=accuracy)
        for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6))
    ]
    with factory() as session:
        job = session.get_one(Job, number)
        page = reads_records.list_checkpoints(session, job, 2, None)
        rest = reads_records.list_checkpoints(session, job, 2, page.next)
    shown = [(one.id, one.latest, one.best) for one in page.items + rest.items]
    assert shown == [(made[3], True, False), (made[2], False, False), (made[1], False, True)]


def test_the_tail_of_a_log_is_that_of_its_lines(factory: Factory) -> None:
    worker = FakeWorker.start(factory)
    chance = random.Random(7)
    for _ in range(12):
        whole = "".join(chance.choice(["x", "yy", "\n", "\n\n", "z\n"]) for _ in range(chance.randrange(1, 40)))
        cuts = sorted(chance.randrange(len(whole) + 1) for _ in range(5))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if whole[a:b]]
        number = submit(factory, "admin")
        claimed = worker.claim()
        with factory() as session:
            session.add_all(LogChunk(job_number=number, attempt_id=claimed.attempt_id, text=piece) for piece in pieces)
            session.commit()
            for lines in (1, 2, 5, 100):
                tail = "".join(view.text for view in reads_records.read_log_tail(session, number, lines).items)
                assert tail == "".join(whole.splitlines(keepends=True)[-lines:]), (pieces, lines)
        worker.finish(claimed, Ending(Outcome.FAILED, failure=Failure("nan_loss", "")))


@given(st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535), st.floats(0, 1, width=32))))
def test_predictions_are_packed_without_loss(rows: list[tuple[int, int, float]]) -> None:
    packed = predictions.pack(rows)
    assert len(packed) == 8 * len(rows)
    assert list(predictions.unpack(packed)) == rows


def test_cursors() -> None:
    assert position("job", None) is None
    assert position("job", cursor("job", 12)) == 12
    for wrong in ("", "12", "job-", "job-x", "job--1", "worker-12", "job-1_0", "job-٣", "job-" + "9" * 19, "job-1\n"):
        with pytest.raises(InvalidInput, match="cursor: is not one of this list"):
            position("job", wrong)
