"""``/metrics`` for Prometheus: to administrators, and to whoever has STOKER_METRICS_TOKEN."""

import hmac
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from stoker.api.problems import of_error
from stoker.api.services import Services
from stoker.api.signin import bearer
from stoker.errors import Forbidden, StokerError, Unavailable
from stoker.jobs.gauges import Gauges, read_gauges

ADDRESS = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def install(app: Starlette) -> None:
    """Add it, outside of the prefix, where Prometheus looks."""
    app.router.add_route(ADDRESS, metrics, ["GET"])


async def metrics(request: Request) -> Response:
    """The figures of this moment."""
    services: Services = request.app.state.services
    try:
        text = await run_in_threadpool(_look, services, request.headers.get("authorization"))
    except StokerError as error:
        return of_error(error)
    return Response(text, media_type=CONTENT_TYPE)


def _look(services: Services, authorization: str | None) -> bytes:
    """Raises NotAuthenticated, Forbidden, Unavailable."""
    _admit(services, bearer(authorization))
    try:
        with services.sessions() as session:
            found = read_gauges(session)
    except SQLAlchemyError:
        raise Unavailable("the database (STOKER_DATABASE_URL)") from None
    registry = CollectorRegistry()
    registry.register(_Families(found, services))
    return generate_latest(registry)


def _admit(services: Services, token: str) -> None:
    """Raises NotAuthenticated, Forbidden."""
    own = services.settings.metrics_token
    if own is not None and hmac.compare_digest(own.encode(), token.encode()):
        return
    try:
        caller = services.sign_in.check(token)
    except SQLAlchemyError:
        raise Unavailable("the database (STOKER_DATABASE_URL)") from None
    if not caller.admin:
        raise Forbidden("read the figures of all teams: that takes an administrator or STOKER_METRICS_TOKEN")


class _Families(Collector):
    """Gauges in Prometheus's words."""

    def __init__(self, found: Gauges, services: Services) -> None:
        self._found, self._services = found, services

    def collect(self) -> Iterator[Metric]:
        """All families."""
        found, spent = self._found, self._services.spent()
        yield _family("stoker_queue_jobs", "Jobs that wait", ("team", "reason"), found.queue)
        yield _family("stoker_queue_oldest_seconds", "Longest present wait", ("team",), _single(found.oldest_seconds))
        yield _family("stoker_running_jobs", "Jobs that run", ("team",), _single(found.running))
        waits = {(f"{share:g}",): seconds for share, seconds in found.wait_seconds.items()}
        yield _family("stoker_wait_seconds", "From submit to start, last hour", ("quantile",), waits)
        yield _family("stoker_attempts", "Attempts that ended in the last hour", ("outcome", "class"), found.attempts)
        yield _family("stoker_notifications", "Still to be delivered", (), {(): found.notifications})
        leases = {(one.name,): one.lease_seconds for one in found.workers}
        yield _family("stoker_lease_seconds", "What is left of a worker's lease", ("worker",), leases)
        yield _family(
            "stoker_worker_cpus", "CPUs offered", ("worker",), {(one.name,): one.cpus for one in found.workers}
        )
        used = {(one.name,): one.cpus_used for one in found.workers}
        yield _family("stoker_worker_cpus_used", "CPUs promised to jobs", ("worker",), used)
        draining = {(one.name,): one.draining for one in found.workers}
        yield _family("stoker_worker_draining", "1: takes no new jobs", ("worker",), draining)
        names = ("worker", "device", "model")
        shares = {(one.worker, one.uuid, one.model): one.used for one in found.devices}
        yield _family("stoker_device_used", "Share of a device that jobs hold", names, shares)
        bad = {(one.worker, one.uuid, one.model): one.quarantined for one in found.devices}
        yield _family("stoker_device_quarantined", "1: out of use until a self-test passes", names, bad)
        yield SummaryMetricFamily(
            "stoker_dispatch_seconds",
            "Passes of this process's dispatcher",
            count_value=spent.passes,
            sum_value=spent.seconds,
        )


def _single(values: Mapping[str, float]) -> dict[tuple[str], float]:
    return {(name,): value for name, value in values.items()}


def _family(name: str, told: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, told, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), float(value))
    return family
