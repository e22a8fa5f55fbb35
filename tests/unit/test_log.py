"""Log lines are JSON, and say which job and attempt they belong to, whoever writes them in whichever thread."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stoker.log import Events, about, carried
from tests.support.logs import Logged, logged

events = Events("tests.log")


@pytest.fixture
def written() -> Iterator[Logged]:
    with logged() as stream:
        yield stream


def test_a_line_says_what_it_is_about(written: Logged) -> None:
    with about(attempt="a1"):
        events.warning("first")
        with about(job=7):
            events.warning("second", step=3)
            logging.getLogger("sqlalchemy.pool").warning("of a library")
        events.warning("third")
    events.warning("fourth")
    told = [(line["event"], line.get("job"), line.get("attempt")) for line in written.lines()]
    assert told == [
        ("first", None, "a1"),
        ("second", 7, "a1"),
        ("of a library", 7, "a1"),
        ("third", None, "a1"),
        ("fourth", None, None),
    ]
    assert written.lines()[1]["step"] == 3


def test_another_thread_says_so_only_where_it_is_told(written: Logged) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()  # the thread is older than the job
        with about(job=7):
            pool.submit(carried(lambda: events.warning("carried"))).result()
            pool.submit(lambda: events.warning("alone")).result()
        with about(job=8):
            pool.submit(carried(lambda: events.warning("carried"))).result()
    assert [line.get("job") for line in written.lines()] == [7, None, 8]


def test_a_block_that_fails_is_left(written: Logged) -> None:
    with pytest.raises(ValueError, match="no"), about(job=7):
        raise ValueError("no")
    events.warning("after")
    assert "job" not in written.lines()[0]


def test_no_secret_and_no_second_line(written: Logged) -> None:
    with about(job="7\n{}", url="redis://:hunter2@host"):
        events.warning("one")
    (line,) = written.getvalue().splitlines()
    assert "hunter2" not in line
