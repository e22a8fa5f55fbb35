"""The live stream of a job, as server-sent events: state, progress, metric, log, end."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from stoker.api.dependencies import Responses, Token
from stoker.api.jobs import linked
from stoker.api.parameters import Number
from stoker.api.services import Services, Shared
from stoker.errors import InvalidInput, StokerError
from stoker.jobs import reads_jobs, reads_metrics, reads_records
from stoker.jobs.lifecycle import FINAL
from stoker.jobs.reads_jobs import JobView

router = APIRouter(prefix="/jobs", tags=["jobs"])

PIECES = 200  # of log and of metrics that one look reads
_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)
_JOB = TypeAdapter(JobView)
STREAM: Responses = {200: {"content": {"text/event-stream": {}}, "description": "Events, until the job has ended"}}


@dataclass(frozen=True, slots=True)
class Position:
    """How far a client has read: the ids of the last piece of log and of metrics; travels as the events' id."""

    log: int = 0
    metric: int = 0

    def __str__(self) -> str:
        return f"{self.log}-{self.metric}"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the database has found."""

    job: JobView
    events: list[str]  # log and metrics that are new, formatted
    position: Position
    more: bool  # there is more of them than one look reads


@router.get("/{number}/stream", response_class=StreamingResponse, responses=STREAM)
async def stream(
    number: Number,
    services: Shared,
    token: Token,
    last_event_id: Annotated[str | None, Header(description="The id of the last event that was read")] = None,
) -> StreamingResponse:
    """Follow a job: `state` (the job), `progress`, `metric` {key, steps, values}, `log` {id, text}, `end`.

    After a broken connection the stream goes on behind the event whose id is given as Last-Event-ID.
    """
    position = _position(last_event_id)
    first = await run_in_threadpool(look, services, token, number, position)
    headers = {"X-Accel-Buffering": "no"}  # a proxy in between shall not collect events
    return StreamingResponse(_events(services, token, number, first), media_type="text/event-stream", headers=headers)


def _position(last_event_id: str | None) -> Position:
    if last_event_id is None:
        return Position()
    match = _ID.fullmatch(last_event_id)
    if match is None:
        raise InvalidInput("Last-Event-ID", "is none of this stream", "pass on the last `id:`, or leave it out")
    return Position(int(match[1]), int(match[2]))


def look(services: Services, token: str, number: int, position: Position) -> Look:
    """Read what is new; raises NotAuthenticated for a token that was revoked since, JobNotFound."""
    caller = services.sign_in.check(token)
    with services.sessions() as session:
        job = linked(
            services, reads_jobs.view_job(session, caller, number, services.foresight)
        )  # read first: at its end all the rest is there
        points = reads_metrics.new_points(session, number, position.metric, PIECES)
        logs = reads_records.read_logs(session, number, PIECES, position.log)
    events = []
    for segment in points:
        position = replace(position, metric=segment.segment_id)
        if not segment.steps:
            continue
        document = {"key": segment.key, "steps": segment.steps, "values": segment.values}
        events.append(_format("metric", document, position))
    for piece in logs.items:
        position = replace(position, log=piece.id)
        events.append(_format("log", {"id": piece.id, "text": piece.text}, position))
    return Look(job, events, position, logs.next is not None or len(points) == PIECES)


async def _events(services: Services, token: str, number: int, first: Look) -> AsyncIterator[str]:
    loop, pace = asyncio.get_running_loop(), services.pace
    told: dict[str, Any] = {}
    seen: Look | None = first
    position, spoke = first.position, loop.time()
    with services.feed.subscribe(number) as changed:
        while not services.feed.stopped:
            looked = loop.time()
            news = _news(seen, told) if seen else []
            for event in news:
                yield event
            if seen:
                position = seen.position
                if seen.job.state in FINAL and not seen.more:
                    yield _format("end", {"number": number, "state": seen.job.state}, position)
                    return
            if news:
                spoke = loop.time()
            elif loop.time() - spoke >= pace.heartbeat_seconds:
                yield ": still here\n\n"
                spoke = loop.time()
            if not (seen and seen.more):
                await _wait(changed, pace.look_seconds)
                await asyncio.sleep(max(0.0, looked + pace.between_seconds - loop.time()))
            changed.clear()
            try:
                seen = await run_in_threadpool(look, services, token, number, position)
            except SQLAlchemyError:
                seen = None  # the database is away: the stream stays, and goes on when it is back
            except StokerError:
                return  # the token was revoked


async def _wait(changed: asyncio.Event, at_most_seconds: float) -> None:
    try:
        async with asyncio.timeout(at_most_seconds):
            await changed.wait()
    except TimeoutError:
        pass


def _news(seen: Look, told: dict[str, Any]) -> list[str]:
    """The events of a look; state and progress only where they differ from what was told before."""
    state = _JOB.dump_python(seen.job, mode="json")
    progress = state["progress"]
    unchanging = state | {"progress": None}
    states = [_format("state", state, seen.position)] if told.get("state") != unchanging else []
    moved = progress is not None and told.get("progress") != progress
    steps = [_format("progress", progress, seen.position)] if moved else []
    first = not told
    told.update(state=unchanging, progress=progress)
    # What was printed before a change of state is shown before it; at the very first the client wants the job.
    return [*states, *seen.events, *steps] if first else [*seen.events, *steps, *states]


def _format(name: str, document: Any, position: Position) -> str:
    """One event; JSON escapes line ends, so a line of a log cannot forge another event."""
    return f"event: {name}\nid: {position}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"
