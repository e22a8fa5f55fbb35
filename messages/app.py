"""The Celery app, its one task name, and the one way to send. The message is a pointer; the database is the truth."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from kombu.utils.url import parse_url
from redis.exceptions import AuthenticationError, RedisError

from stoker.errors import SettingInvalid, Unavailable
from stoker.settings import Settings

if TYPE_CHECKING:  # SQLAlchemy stays out of the processes that only look: Flower, celery inspect
    from stoker.jobs.attempts import Outgoing
    from stoker.jobs.reads_tasks import TaskView

TASK = "stoker.run"
DEFAULT_BROKER_URL = "redis://127.0.0.1:6379/0"
SEND_TIMEOUT_SECONDS = 3.0
SCHEMES = ("redis", "rediss", "redis+socket")


def make_app(broker_url: str) -> Celery:
    """A Celery app for this broker. Connects at the first use."""
    app = Celery("stoker", broker=broker_url, set_as_current=False)
    app.conf.update(
        broker_use_ssl=_tls(broker_url),
        result_backend=None,  # results are rows
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        event_serializer="json",
        worker_pool="threads",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_acks_late=False,  # a worker that holds an unacknowledged message dies when Redis goes away
        worker_send_task_events=True,  # Flower; and disable_prefetch waits 0.6 s between tasks without them
        task_send_sent_event=True,
        worker_enable_prefetch_count_reduction=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_detect_quorum_queues=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a Redis that refuses writes (full, cannot save) ends no worker
        broker_pool_acquire_timeout=SEND_TIMEOUT_SECONDS,
        broker_transport_options={
            "socket_timeout": SEND_TIMEOUT_SECONDS,  # with the default, a hung Redis blocks a sender for ever
            "socket_connect_timeout": SEND_TIMEOUT_SECONDS,
            "health_check_interval": 10,
            "ack_emulation": False,
            "max_retries": 0,  # of the connection under a send; the consumer has its own
        },
        worker_redirect_stdouts=False,
        worker_hijack_root_logger=False,
    )
    return app


def _tls(broker_url: str) -> dict[str, Any] | None:
    """What is asked of the broker's certificate: None without TLS, else what the URL says, and no less than it can say.

    Left alone, kombu asks nothing where the URL has no ``ssl_…``, and Flower reads only what stands here.

    Raises SettingInvalid.
    """
    if not broker_url.startswith("rediss://"):
        return None
    try:
        asked = parse_url(broker_url).get("ssl", {})
    except KeyError as error:
        raise SettingInvalid("STOKER_BROKER_URL", f"ssl_cert_reqs={error} is not known", "write required") from None
    except ValueError:  # with a port that is none
        raise SettingInvalid("STOKER_BROKER_URL", "is not a URL", "write rediss://user:password@host:6380/0") from None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **asked}


def app_from(settings: Settings) -> Celery:
    """The app for the broker that the settings name, or for one at its usual address."""
    return make_app(settings.broker_url or DEFAULT_BROKER_URL)


def refuse_broker(app: Celery) -> None:
    """Raise SettingInvalid for a broker that is no Redis, or that answers and lets nobody in.

    One that does not answer may come back, and is waited for.
    """
    setting, scheme = "STOKER_BROKER_URL", app.conf.broker_url.partition("://")[0]
    if scheme not in SCHEMES:
        raise SettingInvalid(setting, "is not a URL of Redis", f"write {':// or '.join(SCHEMES)}://")
    try:
        with app.connection_for_write() as connection:
            connection.default_channel.client.ping()
    except (KombuError, OSError, RedisError) as error:
        if isinstance(error.__cause__ or error, AuthenticationError):
            fix = "write those that it was made with"
            raise SettingInvalid(setting, "its user or password is refused by Redis", fix) from None
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fix = "write the host that it names, and its authority's certificate in ssl_ca_certs"
            raise SettingInvalid(setting, "Redis's certificate is not to be trusted", fix) from None


def queue_of(worker: str) -> str:
    """The name of a worker's own queue."""
    return f"worker.{worker}"


def shown(attempt: Outgoing | TaskView) -> dict[str, str]:
    """What is shown of an attempt in place of its message's arguments."""
    return {
        "args": f"{attempt.name} · job {attempt.job_number} · attempt {attempt.ordinal}",
        "kwargs": f"user={attempt.owner} team={attempt.team}",
    }


def send(outgoing: Outgoing, using: Celery) -> None:
    """Give an attempt's message to its worker's queue. Sending it again is harmless: only one can claim.

    Raises Unavailable: the broker did not take it within about three seconds.
    """
    words = shown(outgoing)
    try:
        using.send_task(
            TASK,
            args=[str(outgoing.attempt_id)],
            task_id=str(outgoing.attempt_id),
            queue=queue_of(outgoing.worker),
            argsrepr=words["args"],
            kwargsrepr=words["kwargs"],
            retry=False,
            ignore_result=True,
        )
    except (KombuError, CeleryError, OSError, *using.connection_for_write().connection_errors):
        raise Unavailable("the broker (STOKER_BROKER_URL)") from None
