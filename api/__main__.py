"""``python -m stoker.api``: serve the API, dispatch jobs, until SIGTERM."""

import gc
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from types import FrameType

import uvicorn
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stoker.api.app import create_app
from stoker.api.services import Services
from stoker.errors import SettingInvalid, StackError, StokerError, Unavailable
from stoker.jobs.courier import Courier
from stoker.jobs.database import connect, refusal, refuse_other_schema, sessions
from stoker.jobs.dispatcher import Dispatcher
from stoker.jobs.models import User
from stoker.log import Events, configure
from stoker.messages.app import app_from, refuse_broker, send
from stoker.settings import Settings, load

BACKLOG = 512
GRACE_SECONDS = 5  # for requests that are being answered when the process is to end
DATABASE_SECONDS = 60.0  # to wait for a database that starts at the same time, as a worker does
PAUSE_SECONDS = 0.5  # between two looks for it

log = Events("stoker.api")


class Server(uvicorn.Server):
    """Ends the live streams when the process is to end; they would never end by themselves."""

    refusal: StokerError | None = None  # why it ended by itself

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of SIGTERM or SIGINT."""
        self._end_streams()
        super().handle_exit(sig, frame)

    def refuse(self, refusal: StokerError) -> None:
        """End, for this reason."""
        self.refusal = refusal
        self._end_streams()
        self.should_exit = True

    def _end_streams(self) -> None:
        services: Services = self.config.app.state.services  # type: ignore[union-attr]
        services.feed.close()


def listen(settings: Settings) -> socket.socket:
    """Bind the address; port 0 takes a free one. Raises SettingInvalid."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    try:
        bound = socket.create_server((settings.api_host, settings.api_port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        where = f"{settings.api_host}:{settings.api_port}"
        raise SettingInvalid("STOKER_API_PORT", f"cannot listen on {where}: {error}", "choose another one") from None
    # Connections inherit it. asyncio sets it only on sockets it made itself, and without it every answer waits 40 ms
    # for the acknowledgement of its own headers.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def examine(settings: Settings) -> None:
    """Look at the database.

    Raises SettingInvalid: it refuses the password; OtherSchema; StackError: other hosts would reach us before there is
    anybody who could sign in; Unavailable: it does not answer.
    """
    if settings.database_url is None:
        return
    engine = connect(settings.database_url, pool_size=1)
    try:
        with sessions(engine)() as session:
            refuse_other_schema(session)
            if not _loopback(settings.api_host) and session.scalars(select(User.id).limit(1)).first() is None:
                raise StackError(f"there are no users yet: make one before the API listens on {settings.api_host}")
    except SQLAlchemyError as error:
        refused = refusal(error) if isinstance(error, DBAPIError) else None
        raise refused or Unavailable("the database (STOKER_DATABASE_URL)") from None
    finally:
        engine.dispose()


def _is_there(settings: Settings) -> bool:
    """Whether the database was found good before anything is served; where only this host reaches us, it may come yet.

    Raises what ``examine`` raises.
    """
    try:
        examine(settings)
    except Unavailable:
        if not _loopback(settings.api_host):
            raise  # it cannot say whether there are users
        return False
    return True


def _await_database(settings: Settings, server: Server) -> None:
    """Look until the database was found good; end the server if it is not, or does not come."""
    log.warning("database_awaited", setting="STOKER_DATABASE_URL", at_most_seconds=DATABASE_SECONDS)
    until = time.monotonic() + DATABASE_SECONDS
    while not server.should_exit:
        try:
            examine(settings)
        except Unavailable as absent:
            if time.monotonic() > until:
                server.refuse(absent)
        except StokerError as refused:
            server.refuse(refused)
        else:
            log.info("database_found")
            return
        time.sleep(PAUSE_SECONDS)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingInvalid, StackError, OtherSchema, Unavailable: no database came."""
    if settings.database_url is None:
        raise SettingInvalid("STOKER_DATABASE_URL", "is not set", "name the database, or use `stoker up`")
    found = _is_there(settings)
    broker = app_from(settings)
    refuse_broker(broker)
    engine = connect(settings.database_url, pool_size=3, application="stoker dispatcher")
    app = create_app(settings, dispatcher=Dispatcher(engine, partial(send, using=broker), settings))
    services: Services = app.state.services
    courier = Courier(engine, services.carrier.carry, services.vault, settings.dispatch_seconds)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the guard writes one line for each request
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _asked)  # uvicorn repeats the signal to whoever had it before: that is not to kill us
    with listen(settings) as bound:
        host, port = bound.getsockname()[:2]
        log.info("api_listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
        courier.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays: a collection in the middle of a pass need not look at all of it
        server = Server(config)
        if not found:
            threading.Thread(target=_await_database, args=(settings, server), name="database", daemon=True).start()
        server.run(sockets=[bound])
    courier.stop()
    engine.dispose()
    if server.refusal:
        raise server.refusal


def _asked(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    log.info("api_stopping", signal=signal.Signals(number).name)


def main() -> int:
    """Run; the exit code: 0 asked to end, 2 it cannot start with these settings."""
    try:
        settings = load(os.environ)
        configure(settings.log_level)
        serve(settings)
    except StokerError as error:
        print(f"stoker api: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
