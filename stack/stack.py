"""Everything Stoker needs on one machine, started in order, watched, and stopped in order."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from stoker.errors import ServiceRefused, SettingInvalid, StackError, Unavailable
from stoker.jobs.database import upgrade
from stoker.settings import Settings
from stoker.stack import services
from stoker.stack.admin import admin_token
from stoker.stack.home import Home
from stoker.stack.ports import choose_port, url_of
from stoker.stack.postgres import Postgres
from stoker.stack.redis import Redis
from stoker.stack.services import Service

START_SECONDS = 180.0  # the first import of torch from a slow disk; one that dies is noticed at once
LONGEST_PAUSE_SECONDS = 30.0  # between two starts of a service that keeps dying
STEADY_SECONDS = 60.0  # having run for so long, a service's earlier deaths are forgotten
Say = Callable[[str], None]


@dataclass(slots=True)
class Watched:
    """A running service and how often it has died lately."""

    service: Service
    grace_seconds: float
    started_at: float = field(default_factory=time.monotonic)  # monotonic seconds, like the next two
    deaths: int = 0
    next_start: float | None = None  # None: it is running


class Stack:
    """A running stack. All methods belong to the thread that started it: the kernel ties the services to it."""

    url: str
    token: str
    flower_url: str
    flower_auth: str

    def __init__(self, settings: Settings, home: Home, say: Say) -> None:
        """Use ``start``."""
        self.settings, self._home, self._say = settings, home, say
        self._watched: list[Watched] = []  # in the order of their start

    @classmethod
    def start(cls, settings: Settings, say: Say) -> Self:
        """Start PostgreSQL and Redis (unless URLs are set), the API, a worker and Flower; return when all are ready.

        Args:
            settings: Of this stack; host, ports and credentials that are not set are chosen and kept.
            say: Receives a line for each service that became ready, died or was stopped.

        Raises StackError: another process holds the home, or a service does not start. SettingInvalid: a port is in
        use, an outside service cannot be used, or the data is of a newer Stoker. Whatever was started is stopped.
        """
        stack = cls(settings, Home(settings.home), say)
        try:
            stack._start()
        except BaseException:
            stack.stop(quiet=True)
            raise
        return stack

    def _start(self) -> None:
        self._choose()
        self._start_stores()
        self._migrate()
        assert self.settings.database_url is not None  # noqa: S101 - _start_stores has set it
        self.token = admin_token(self.settings.database_url, self._home.read("token"))
        self._home.write("token", self.token)
        self._home.write("url", self.url)
        self._home.write("flower-url", self.flower_url)
        stop = self.settings.stop_grace_seconds
        self._launch(services.worker(self.settings, self.token), stop + self.settings.cancel_grace_seconds + 5)
        self._launch(services.api(self.settings), 5)
        self._launch(services.flower(self.settings), 5)
        self._wait(self._watched[-3:])

    def _choose(self) -> None:
        """Settle ports, Flower's password and the key of secrets."""
        old, home = self.settings, self._home
        logs = home.path / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        api = choose_port("STOKER_API_PORT", old.api_host, old.api_port, int(home.read("api-port") or 0))
        flower = choose_port("STOKER_FLOWER_PORT", "127.0.0.1", old.flower_port, int(home.read("flower-port") or 0))
        home.write("api-port", str(api))
        home.write("flower-port", str(flower))
        self.flower_auth = old.flower_basic_auth or f"stoker:{home.secret('flower-password')}"
        self.url = url_of(old.api_host, api)
        self.flower_url = old.flower_url or url_of("127.0.0.1", flower)
        self.settings = replace(
            old,
            api_port=api,
            flower_port=flower,
            flower_basic_auth=self.flower_auth,
            flower_url=self.flower_url,
            public_url=old.public_url or self.url,
            secret_key=old.secret_key or home.key("secret-key"),
        )

    def _start_stores(self) -> None:
        folders = []
        if self.settings.database_url is None:
            began = time.monotonic()
            postgres = Postgres.start(self.settings.home)
            folders.append(postgres.sockets)
            self._home.remember_folders(*folders)
            self._adopt(postgres, began, 20)
            self.settings = replace(self.settings, database_url=postgres.url)
        if self.settings.broker_url is None:
            began = time.monotonic()
            redis = Redis.start(self.settings.home)
            self._home.remember_folders(*folders, redis.folder)
            self._adopt(redis, began, 5)
            self.settings = replace(self.settings, broker_url=redis.url)

    def _migrate(self) -> None:
        assert self.settings.database_url is not None  # noqa: S101 - _start_stores has set it
        began = time.monotonic()
        try:
            upgrade(self.settings.database_url)
        except StackError as error:
            raise SettingInvalid("STOKER_DATABASE_URL", str(error)) from None
        except Unavailable:
            raise SettingInvalid("STOKER_DATABASE_URL", "cannot connect: nobody answers", "is it running?") from None
        self._say(f"Tables      ready in {time.monotonic() - began:.1f} s")

    def _adopt(self, service: Service, began: float, grace_seconds: float) -> None:
        self._watched.append(Watched(service, grace_seconds, began))
        self._say_ready(self._watched[-1])

    def _launch(self, service: Service, grace_seconds: float) -> None:
        self._watched.append(Watched(service, grace_seconds))
        service.launch()

    def _wait(self, waiting: list[Watched]) -> None:
        """Wait for services that start side by side, and say each as it comes."""
        deadline = time.monotonic() + START_SECONDS
        waiting = list(waiting)
        while waiting:
            for watched in [each for each in waiting if each.service.ready()]:
                waiting.remove(watched)
                self._say_ready(watched)
            for watched in waiting:
                child = watched.service.child
                if refusal := child.refusal:
                    raise ServiceRefused(refusal)
                if not child.alive:
                    raise StackError(f"{child.name} ended at once ({child.fate()}){child.last_lines()}")
                if time.monotonic() > deadline:
                    raise StackError(f"{child.name} was not ready after {START_SECONDS:g} s{child.last_lines()}")
            time.sleep(0.1)

    def _say_ready(self, watched: Watched) -> None:
        self._say(f"{watched.service.child.name:<11} ready in {time.monotonic() - watched.started_at:.1f} s")

    def tend(self) -> None:
        """Start again what has died, after a pause that doubles with each death. Call it a few times a second."""
        for watched in self._watched:
            tend(watched, self._say)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each service that runs, by name."""
        children = [watched.service.child for watched in self._watched]
        return {child.name: child.pid for child in children if child.pid is not None and child.alive}

    def stop(self, hurry: Callable[[], bool] = lambda: False, *, quiet: bool = False) -> None:
        """Stop what runs, the last started first, and let others use the home.

        Args:
            hurry: Asked all the while; once true, what still runs is killed.
            quiet: Say nothing.
        """
        while self._watched:
            watched = self._watched.pop()
            watched.service.stop(watched.grace_seconds, hurry)
            if not quiet:
                self._say(f"{watched.service.child.name:<11} stopped")
        self._home.forget("sockets", "url")
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def tend(watched: Watched, say: Say) -> None:
    """Start a service again if it has died and its pause is over; says so once for each death."""
    child, now = watched.service.child, time.monotonic()
    if child.alive:
        if watched.deaths and now - watched.started_at > STEADY_SECONDS:
            watched.deaths = 0
        return
    if watched.next_start is None:
        pause = min(LONGEST_PAUSE_SECONDS, 0.25 * 2**watched.deaths)
        watched.deaths, watched.next_start = watched.deaths + 1, now + pause
        say(f"{child.name:<11} has ended ({child.fate()}); starting it again in {pause:g} s, see {child.log}")
    elif now >= watched.next_start:
        watched.service.launch()
        watched.started_at, watched.next_start = now, None
