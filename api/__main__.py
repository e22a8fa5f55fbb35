"""``python -m stoker.api``: serve the API, dispatch jobs, until SIGTERM."""

import gc
import ipaddress
import os
import signal
import socket
import sys
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

log = Events("stoker.api")


class Server(uvicorn.Server):
    """Ends the live streams when the process is to end; they would never end by themselves."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of SIGTERM or SIGINT."""
        services: Services = self.config.app.state.services  # type: ignore[union-attr]
        services.feed.close()
        super().handle_exit(sig, frame)


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
    """Look at the database before anything is served; where only this host reaches us, it may also come up later.

    Raises SettingInvalid: it refuses the password; OtherSchema; StackError: other hosts would reach us before there is
    anybody who could sign in; Unavailable: it cannot say whether there is.
    """
    if settings.database_url is None:
        return
    alone = _loopback(settings.api_host)
    engine = connect(settings.database_url, pool_size=1)
    try:
        with sessions(engine)() as session:
            refuse_other_schema(session)
            if not alone and session.scalars(select(User.id).limit(1)).first() is None:
                raise StackError(f"there are no users yet: make one before the API listens on {settings.api_host}")
    except SQLAlchemyError as error:
        refused = refusal(error) if isinstance(error, DBAPIError) else None
        if refused or not alone:
            raise refused or Unavailable("the database (STOKER_DATABASE_URL)") from None
    finally:
        engine.dispose()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingInvalid, StackError, Unavailable."""
    if settings.database_url is None:
        raise SettingInvalid("STOKER_DATABASE_URL", "is not set", "name the database, or use `stoker up`")
    examine(settings)
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
        Server(config).run(sockets=[bound])
    courier.stop()
    engine.dispose()


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
