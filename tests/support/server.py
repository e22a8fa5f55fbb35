"""A real API on a real port, over a test's own database, with a queue that the test itself works off."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import uvicorn

from stoker.api.app import create_app
from stoker.api.services import Pace, Services
from stoker.jobs import accounts
from stoker.jobs.attempts import Ending, PredictionsRecord
from stoker.jobs.database import connect
from stoker.jobs.failures import Failure
from stoker.jobs.leases import renew
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.models import User
from stoker.jobs.predictions import pack
from stoker.jobs.records import Batch, write_batch
from stoker.settings import Settings
from tests.support.queue import Queue
from tests.support.waiting import wait_for

SECRET_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
CLASSES = ("cat", "dog", "\x1b[31mred")  # the last one tries to speak to a terminal
ROWS = [(0, 0, 0.9), (1, 0, 0.6), (1, 1, 0.7), (2, 2, 0.8)]
RESULT = {
    "accuracy": 0.75,
    "loss": 0.5,
    "per_class": {"cat": 1.0, "dog": 0.5, "\x1b[31mred": 1.0},
    "confusion": [[1, 0, 0], [1, 1, 0], [0, 0, 1]],
    "classes": list(CLASSES),
    "test_images": 4,
    "epochs": 2,
    "train_seconds": 1.5,
    "device": "cpu",
    "checkpoint": None,
}


@dataclass
class Server:
    """The API's address, a member's token, and the hands of a worker."""

    url: str
    token: str
    queue: Queue
    incarnation: UUID

    def start(self) -> UUID:
        """Place and claim the one job that waits; its attempt."""
        (outgoing,) = self.queue.dispatch()
        self.queue.claim(outgoing.attempt_id, self.incarnation)
        return outgoing.attempt_id

    def report(self, attempt: UUID, batch: Batch) -> None:
        """Write what a trainer reports."""
        with self.queue.factory() as session:
            write_batch(session, attempt, self.incarnation, batch)
            session.commit()

    def succeed(self, attempt: UUID) -> None:
        """End with a result of four test images, three of them right."""
        predictions = PredictionsRecord(len(ROWS), pack(ROWS), CLASSES, None)
        self.queue.finish(attempt, self.incarnation, Ending(Outcome.SUCCEEDED, result=RESULT, predictions=predictions))

    def fail(self, attempt: UUID) -> None:
        """End with an exception of the user's code."""
        failure = Failure("user_error", 'Traceback (most recent call last):\n  File "train.py"\nValueError: no', "")
        self.queue.finish(attempt, self.incarnation, Ending(Outcome.FAILED, failure=failure))

    def promote(self) -> None:
        """Make the user an administrator."""
        with self.queue.factory() as session:
            session.get_one(User, self.queue.user_id).role = "admin"
            session.commit()


def connections(services: Services) -> int:
    """How many database connections requests hold at the moment."""
    pool = services.sessions.kw["bind"].pool
    return int(pool.checkedout())


@contextmanager
def serve(database_url: str, home: Path) -> Iterator[Server]:
    """Run the API in a thread until the block ends."""
    engine = connect(database_url)
    queue = Queue(engine)
    with queue.factory() as session:
        token = accounts.add_token(session, session.get_one(User, queue.user_id), "test")
        session.commit()
    settings = Settings(database_url=database_url, home=home, secret_key=SECRET_KEY, notify_allow="hooks.example.com")
    app = create_app(settings, pace=Pace(0.01, 1.0, 5.0))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started, 20, "the API")
        port = server.servers[0].sockets[0].getsockname()[1]
        incarnation = queue.worker()
        with queue.factory() as session:
            renew(session, incarnation, 300.0)  # nobody renews it while a test runs
            session.commit()
        yield Server(f"http://127.0.0.1:{port}", token, queue, incarnation)
    finally:
        services: Services = app.state.services
        services.feed.close()  # ends the streams; a look at the database that has begun goes on in its thread
        wait_for(lambda: connections(services) == 0, 20, "the last connection to be given back")
        server.should_exit = True
        thread.join(20)
        engine.dispose()
