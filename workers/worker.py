"""A worker process, put together: who it is, what it offers, and the parts that run in it."""

import gc
import logging
import re
import socket
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from stoker.errors import SettingInvalid, StackError, Unavailable
from stoker.jobs.database import connect, refusal, refuse_other_schema, sessions
from stoker.jobs.dispatcher import Dispatcher
from stoker.jobs.fleet import Offer
from stoker.jobs.vault import Vault
from stoker.log import Events
from stoker.messages.app import make_app, queue_of, refuse_broker, send
from stoker.quoting import quoted
from stoker.settings import Settings
from stoker.workers import devices, flower, fresh, host, pip, processes, tasks, watch
from stoker.workers.bounds import Bounds
from stoker.workers.canary import Canary
from stoker.workers.consumer import Sieve
from stoker.workers.environments import Environments
from stoker.workers.herald import Herald
from stoker.workers.kinds import Kinds
from stoker.workers.lease import LeaseKeeper
from stoker.workers.membership import Membership
from stoker.workers.preparation import Preparation, empty_folder
from stoker.workers.quarantine import SELF_TEST_SECONDS, Quarantine
from stoker.workers.runner import Runner
from stoker.workers.runs import Runs
from stoker.workers.stopping import stop_step
from stoker.workers.trainers import COMMAND, ForkServer, allowed_environment
from stoker.workers.transactions import persist
from stoker.workers.watch import DeviceWatch

events = Events(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SPARE_THREADS = 4  # for messages that will be dropped, beside the most attempts that are placed here
DATABASE_SECONDS = 60.0  # to wait for a database that starts at the same time


class Worker:
    """One worker. ``serve`` returns when it was asked to stop."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        command: Sequence[str] = COMMAND,
        self_test_seconds: float = SELF_TEST_SECONDS,
    ) -> None:
        """Check the settings; ``command`` starts the fork server, quarantined devices are tested now and then.

        Raises SettingInvalid.
        """
        self.settings, self._environ = settings, dict(environ)
        self.name = worker_name(settings)
        if settings.database_url is None or settings.broker_url is None:
            missing = "STOKER_DATABASE_URL" if settings.database_url is None else "STOKER_BROKER_URL"
            raise SettingInvalid(missing, "is not set", "a worker needs the database and the broker")
        if settings.worker_attempts < 1:
            raise SettingInvalid("STOKER_WORKER_ATTEMPTS", "is 0", "let a worker run at least one attempt")
        self._vault = Vault(settings.secret_key)
        self._url, self._broker = settings.database_url, settings.broker_url
        self._inventory = devices.inventory(settings.worker_devices)
        self._devices = self._inventory.devices()
        self._objections: dict[str, str] = {}  # what spoke against some of them at the start
        kind = () if self._devices else ("--cpu-only",)
        self._fork_server = ForkServer(environ, (*command, *kind), owns_process=True)
        self._runs = Runs()
        self._bounds = Bounds.of(settings)
        scratch = settings.home / "scratch" / f"{self.name}.canary"
        self._canary = Canary(self._fork_server, self._inventory, allowed_environment(environ), scratch, self._bounds)
        self._self_test_seconds = self_test_seconds
        self.health = settings.home / "run" / f"worker-{self.name}.health"

    def serve(self) -> None:
        """Register, take jobs, and when asked to stop, hand them back.

        Raises NameTaken, StackError, Unavailable: no database, SettingInvalid: it or Redis refuses the password, or
        the home cannot be written, OtherSchema.
        """
        host.refuse_home(self.settings.home)
        app = make_app(self._broker)
        refuse_broker(app)
        _patiently(partial(_refuse_schema, self._url), "look")
        if self._bounds.banner:
            events.warning("confinement_incomplete", banner=self._bounds.banner)
        processes.adopt_orphans()
        self._fork_server.start()
        try:
            self._serve(app)
        finally:
            self._fork_server.close()

    def _serve(self, app: Celery) -> None:
        engine = connect(self._url, pool_size=5, application=f"stoker worker {self.name}")
        self._fork_server.wait_ready()
        self.canary()
        membership = Membership(sessions(engine), self.offer(), self.settings.lease_seconds)
        _patiently(membership.join, "register")
        empty_folder(self.settings.home / "scratch" / self.name)  # of incarnations that are no more
        self.health.parent.mkdir(parents=True, exist_ok=True)
        keeper = LeaseKeeper(self.settings, self._url, membership, self._runs, self._fork_server, self.health)
        keeper.start()
        try:
            self._consume(app, engine, membership)
        finally:
            keeper.stop()
            membership.leave()
            self.health.unlink(missing_ok=True)
            engine.dispose()

    def _consume(self, app: Celery, engine: Engine, membership: Membership) -> None:
        quarantine = Quarantine(
            sessions(engine),
            self.name,
            self._inventory,
            self._canary.sings,
            self._self_test_seconds,
            self._objections,
        )
        runner = Runner(
            sessions(engine),
            self.settings,
            membership,
            self._inventory,
            self._fork_server,
            self._runs,
            self._kinds(engine),
            quarantine,
            self._vault,
            self._bounds,
        )
        herald = Herald(sessions(engine), app, membership, self.settings.renew_seconds)
        tasks.register(app, runner, herald)
        flower.install_controls(sessions(engine), membership, herald)
        app.steps["consumer"].add(flower.presence_step(herald))
        app.steps["consumer"].add(Sieve)
        app.steps["worker"].add(stop_step(self._runs, membership, self.settings.stop_grace_seconds))
        dispatcher = Dispatcher(engine, partial(send, using=app), self.settings)
        dispatcher.start()
        uuids = [one.uuid for one in self._devices]
        watched = DeviceWatch(self._inventory, uuids, self._runs, quarantine.judge, self._objections)
        quarantine.start()
        watched.start()
        herald.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays: a collection in the middle of a pass need not look at all of it
        try:
            self._take_jobs(self._celery(app))
        finally:
            herald.stop()
            watched.stop()
            quarantine.stop()
            dispatcher.stop()

    def _kinds(self, engine: Engine) -> Kinds:
        visible, settings = allowed_environment(self._environ), self.settings
        preparation = Preparation(
            sessions(engine), self._inventory, visible, settings.cache, settings.cache_bytes, self._bounds
        )
        builders = Environments(settings, self._fork_server, visible | pip.environment_of(self._environ), self._bounds)
        return Kinds(settings, preparation, builders)

    @staticmethod
    def _take_jobs(celery: Any) -> None:
        """Take jobs until asked to stop; raises StackError when Celery, which tells nobody, has ended by an error."""
        celery.start()
        if celery.exitcode:
            raise StackError(f"Celery ended by itself (exit code {celery.exitcode}); see the log above")

    def _celery(self, app: Celery) -> Any:
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # of a default that we have set
        warnings.filterwarnings("ignore", category=SecurityWarning)  # root: meant for pickled messages; ours are JSON
        signals.setup_logging.connect(_keep_logging, weak=False)
        app.conf.worker_consumer = "stoker.workers.consumer:Consumer"
        return app.Worker(
            hostname=f"{self.name}@{socket.gethostname()}",
            queues=[queue_of(self.name)],
            concurrency=self.settings.worker_attempts + SPARE_THREADS,
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )

    def offer(self) -> Offer:
        """What this worker offers."""
        settings = self.settings
        return Offer(
            name=self.name,
            cpus_milli=host.offered_cpus_milli(settings.worker_cpus),
            memory_bytes=host.offered_memory_bytes(settings.worker_memory_bytes),
            attempts_limit=settings.worker_attempts,
            cpu_model=host.cpu_model(),
            devices=self._devices,
            pool=settings.worker_pool,
            notice=self._bounds.banner,
        )

    def canary(self) -> None:
        """Let a forked child make one training step on each device, or on the CPU where there are none.

        A device that others use, or on which it fails, is out of use from the start. Where it fails everywhere, every
        trainer will be a fresh interpreter instead. Raises StackError: it fails there too, and on the CPU.
        """
        uuids = [device.uuid for device in self._devices]
        self._objections = watch.at_start(self._inventory, uuids)
        usable = [uuid for uuid in uuids if uuid not in self._objections]
        failed = self._canary.trial(usable)
        if len(failed) == max(1, len(usable)):
            self._start_fresh()
            failed = self._canary.trial(usable)
            if len(failed) == max(1, len(usable)) and (not usable or self._canary.trial([])):
                raise StackError(f"{next(iter(failed.values()))}, in a fresh process too; see the log above")
        faults = self._objections | failed
        for uuid in faults:
            events.error("device_not_offered", uuid=uuid, reason=faults[uuid])
        self._devices = tuple(replace(device, fault=faults.get(device.uuid)) for device in self._devices)

    def _start_fresh(self) -> None:
        events.error("trainers_start_fresh", reason="forked children cannot train here; each job starts seconds later")
        self._fork_server.close()
        self._fork_server = ForkServer(self._environ, fresh.COMMAND, owns_process=True)
        self._fork_server.start()
        self._fork_server.wait_ready()
        self._canary = replace(self._canary, fork_server=self._fork_server)


def worker_name(settings: Settings) -> str:
    """The worker's stable name: as set, or the host's.

    Raises SettingInvalid.
    """
    name = settings.worker_name or socket.gethostname()
    if not NAME.fullmatch(name):
        raise SettingInvalid("STOKER_WORKER_NAME", f"{quoted(name, 100)} is not a name", "use letters, digits, . _ -")
    return name


def _keep_logging(**_: Any) -> None:
    """Celery leaves logging alone where somebody listens to this signal; of its own words only warnings count."""
    logging.getLogger("celery").setLevel(logging.WARNING)


def _refuse_schema(url: str) -> None:
    engine = connect(url, pool_size=1)
    try:
        with sessions(engine)() as session:
            refuse_other_schema(session)
    finally:
        engine.dispose()


def _patiently(step: Callable[[], None], what: str) -> None:
    """Make a step as soon as the database is up.

    Raises what it raises; Unavailable; SettingInvalid: the database refuses the password.
    """

    def let_in() -> None:
        try:
            step()
        except OperationalError as error:
            raise refusal(error) or error from None

    try:
        persist(let_in, go_on=_for_seconds(DATABASE_SECONDS), what=what)
    except OperationalError:
        raise Unavailable("the database (STOKER_DATABASE_URL)") from None


def _for_seconds(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() < until
