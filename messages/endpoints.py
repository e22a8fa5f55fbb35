"""Endpoints of Flower that Stoker closes: nobody sends tasks by them, and its figures ask for its password."""

from typing import Any

from flower.api import BaseApiHandler
from flower.api.tasks import TaskApply, TaskAsyncApply, TaskSend
from flower.urls import handlers
from flower.views.monitor import Metrics
from tornado.web import HTTPError, authenticated


class NoSending(BaseApiHandler):
    """In place of what sends any task with any arguments to any queue: no row stands behind such a message."""

    @authenticated
    async def post(self, _task: str) -> None:
        """Refuse."""
        raise HTTPError(403, "Stoker does not allow sending tasks: submit a job with `stoker` or POST /api/v1/jobs")


class OwnMetrics(Metrics):
    """Flower's figures, for those who have its password."""

    @authenticated
    async def get(self) -> None:
        """Answer as Flower does."""
        await super().get()


def close() -> None:
    """Put ours in place of Flower's, before it is made.

    Raises KeyError, and importing this ImportError: this Flower has other endpoints; none is left open unseen.
    """
    ours: dict[Any, Any] = dict.fromkeys((TaskApply, TaskAsyncApply, TaskSend), NoSending) | {Metrics: OwnMetrics}
    places = {entry[1]: place for place, entry in enumerate(handlers) if isinstance(entry, tuple)}
    for theirs, mine in ours.items():
        handlers[places[theirs]] = (handlers[places[theirs]][0], mine)
