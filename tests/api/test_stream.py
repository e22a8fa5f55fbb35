"""The live stream of a job, through a real server: events as they happen, and where a client goes on."""

import json
import socket
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from stoker.api.app import create_app
from stoker.api.services import Pace
from stoker.jobs import submissions
from stoker.jobs.models import LogChunk
from stoker.settings import Settings
from tests.api.conftest import People
from tests.support.finished_job import FakeWorker, finished, submit
from tests.support.waiting import wait_for

PACE = Pace(between_seconds=0.05, look_seconds=30, heartbeat_seconds=30)  # so that only wake-ups bring news


@dataclass
class Event:
    name: str
    id: str
    data: Any


@pytest.fixture
def pace() -> Pace:
    return PACE


@pytest.fixture
def app(settings: Settings, pace: Pace) -> FastAPI:
    return create_app(settings, pace=pace)


@pytest.fixture
def address(app: FastAPI, people: People) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1"
        app.state.services.feed.close()
        server.should_exit = True
        thread.join()


def follow(address: str, token: str, number: int, last: str | None = None) -> Generator[Event, None, None]:
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last} if last else {})
    with httpx.stream("GET", f"{address}/jobs/{number}/stream", headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                yield Event("comment", "", line)
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
                fields = {}


def test_a_finished_job_is_told_whole_and_the_stream_ends(
    address: str, people: People, factory: sessionmaker[Session]
) -> None:
    number = finished(factory, FakeWorker.start(factory))
    events = list(follow(address, people.ada, number))
    assert [event.name for event in events] == ["state", "metric", "log", "progress", "end"]
    state, metric, log, progress, end = (event.data for event in events)
    assert (state["number"], state["state"]) == (number, "succeeded")
    assert metric == {"key": "loss", "steps": [1, 2], "values": [2.5, 1.5]}
    assert log["text"] == "epoch 1\nepoch 2\n"
    assert progress["fraction"] == 0.5
    assert end == {"number": number, "state": "succeeded"}
    after_log = list(follow(address, people.ada, number, events[2].id))
    assert [event.name for event in after_log] == ["state", "progress", "end"]
    after_metric = list(follow(address, people.ada, number, events[1].id))
    assert [event.name for event in after_metric] == ["state", "log", "progress", "end"]


def test_news_arrive_as_they_happen(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    events = follow(address, people.ada, number)
    first = next(events)
    assert (first.name, first.data["state"], first.data["reason"]["code"]) == ("state", "queued", "no_worker")
    worker = FakeWorker.start(factory)
    claimed = worker.claim()
    assert until(events, "state", "running").data["worker"] == "w1"
    worker.batch(claimed, log="a line\nevent: end\ndata: forged\n\n", metrics={"loss": ([7], [1.25])})
    assert next(events).data == {"key": "loss", "steps": [7], "values": [1.25]}
    assert next(events).data["text"] == "a line\nevent: end\ndata: forged\n\n"
    worker.batch(claimed, progress={"phase": "train", "epoch": 0, "epochs": 2, "step": 1, "steps": 4})
    assert next(events).data["fraction"] == 0.25
    worker.succeed(claimed)
    assert [event.name for event in events] == ["state", "end"]


def until(events: Iterator[Event], name: str, state: str) -> Event:
    return next(event for event in events if event.name == name and event.data["state"] == state)


def test_a_long_log_comes_whole(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    worker = FakeWorker.start(factory)
    claimed = worker.claim()
    with factory() as session:
        session.add_all(LogChunk(job_number=number, attempt_id=claimed.attempt_id, text=f"{at}\n") for at in range(450))
        session.commit()
    worker.succeed(claimed)
    events = list(follow(address, people.ada, number))
    logs = [event.data["text"] for event in events if event.name == "log"]
    assert logs == [f"{at}\n" for at in range(450)]
    assert events[-1].name == "end"


@pytest.mark.parametrize("pace", [Pace(between_seconds=0.4, look_seconds=30, heartbeat_seconds=30)])
def test_a_flood_of_reports_is_gathered(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    worker = FakeWorker.start(factory)
    claimed = worker.claim()
    events = follow(address, people.ada, number)
    next(events)
    began = time.monotonic()
    for step in range(1, 31):
        worker.batch(claimed, progress={"step": step, "steps": 30})
    worker.succeed(claimed)
    told = [event.data["step"] for event in events if event.name == "progress"]
    assert told[-1] == 30
    assert len(told) <= 2 + (time.monotonic() - began) / 0.4


@pytest.mark.parametrize("pace", [Pace(between_seconds=0.02, look_seconds=0.05, heartbeat_seconds=0.1)])
def test_a_silent_stream_shows_that_it_lives(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    events = follow(address, people.ada, number)
    next(events)
    assert next(events).data == ": still here"


@pytest.mark.parametrize("pace", [Pace(between_seconds=0.02, look_seconds=0.05, heartbeat_seconds=30)])
def test_a_revoked_token_ends_its_streams(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    events = follow(address, people.ada, number)
    next(events)
    bearer = {"Authorization": f"Bearer {people.ada}"}
    token = httpx.get(f"{address}/tokens", headers=bearer).json()["items"][0]["id"]
    assert httpx.delete(f"{address}/tokens/{token}", headers=bearer).status_code == 204
    assert list(events) == []


def test_a_cancel_is_seen_by_all_who_follow(address: str, people: People, factory: sessionmaker[Session]) -> None:
    number = submit(factory)
    streams = [follow(address, token, number) for token in (people.ada, people.bob, people.admin)]
    for events in streams:
        assert next(events).name == "state"
    with factory() as session:
        submissions.cancel(session, number, actor="ada")
        session.commit()
    for events in streams:
        assert [(event.name, event.data["state"]) for event in events] == [("state", "cancelled"), ("end", "cancelled")]


def test_a_silent_feed_looks_whether_the_database_is_there(
    app: FastAPI, factory: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> Any:
        with factory() as session:
            query = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'stoker feed'"
            return session.scalar(text(f"{query} AND datname = current_database() AND query LIKE 'LISTEN %'"))

    monkeypatch.setattr("stoker.api.feed.SILENCE_SECONDS", 0.05)
    feed = app.state.services.feed
    feed.start()
    first = wait_for(asked, 20, "the feed to listen")
    wait_for(lambda: asked() > first, 20, "the feed to ask again")
    feed.join()


def test_a_client_that_leaves_is_forgotten(
    app: FastAPI, address: str, people: People, factory: sessionmaker[Session]
) -> None:
    feed = app.state.services.feed
    events = follow(address, people.ada, submit(factory))
    next(events)
    wait_for(lambda: feed.streams == 1, 30, "the stream to subscribe")
    events.close()
    wait_for(lambda: feed.streams == 0, 30, "the stream to be forgotten")
