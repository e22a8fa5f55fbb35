"""The application: one prefix, one sign-in for every route, one place for errors."""

import contextlib
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from typing import Any, Literal, Protocol

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse
from starlette.routing import Route

from stoker.api import (
    accounts,
    checkpoints,
    code,
    datasets,
    exposition,
    health,
    jobs,
    outputs,
    people,
    pools,
    predictions,
    problems,
    queue,
    quotas,
    records,
    secrets,
    steering,
    stream,
    workers,
)
from stoker.api.dependencies import caller
from stoker.api.feed import Feed
from stoker.api.guard import LIMIT_SECONDS, Guard
from stoker.api.parameters import known_parameters
from stoker.api.problems import PREFIX
from stoker.api.services import Pace, Services
from stoker.api.signin import SignIn
from stoker.errors import SettingInvalid
from stoker.jobs.database import connect, sessions
from stoker.jobs.dispatcher import Spent
from stoker.jobs.prospects import Foresight
from stoker.jobs.spec import JobSpec
from stoker.jobs.vault import Vault
from stoker.messages.carrier import Carrier
from stoker.settings import Settings

ROUTERS = (
    jobs,
    steering,
    stream,
    records,
    predictions,
    checkpoints,
    outputs,
    code,
    datasets,
    workers,
    accounts,
    people,
    quotas,
    pools,
    secrets,
    queue,
)
BODIES = (
    accounts.NewToken,
    people.NewTeam,
    people.TeamChange,
    people.NewUser,
    people.UserChange,
    quotas.QuotaChange,
    pools.PoolChange,
    secrets.NewSecret,
    steering.JobChange,
)
POOL = 20  # connections kept; as many again in need: together, one for each thread that serves a request


class Wakeable(Protocol):
    """What the application does with a dispatcher."""

    spent: Spent

    def start(self) -> None:
        """Begin to dispatch."""

    def kick(self) -> None:
        """Ask for a pass; never waits."""

    def stop(self) -> None:
        """End."""


def create_app(
    settings: Settings,
    *,
    dispatcher: Wakeable | None = None,
    pace: Pace | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> FastAPI:
    """Make the application. Without a dispatcher it accepts jobs, and others place them.

    Raises SettingInvalid: no database is named, the key of secrets is none, or nobody could be notified as it is set.
    """
    if settings.database_url is None:
        raise SettingInvalid("STOKER_DATABASE_URL", "is not set", "name the database, or use `stoker up`")
    vault, carrier = Vault(settings.secret_key), Carrier.of(settings)
    engine = connect(settings.database_url, pool_size=POOL, application="stoker api")
    factory = sessions(engine)
    feed = Feed(settings.database_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        feed.start()
        if dispatcher:
            dispatcher.start()
        yield
        feed.join()
        if dispatcher:
            dispatcher.stop()
        engine.dispose()

    app = FastAPI(
        title="Stoker",
        version=version("stoker"),
        description="Keeps a team's GPUs fed: a queue for PyTorch training jobs that loses nothing.",
        lifespan=lifespan,
        openapi_url=None,  # it asks for a token like everything else
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(caller), Depends(known_parameters)],
    )
    kick = dispatcher.kick if dispatcher else _nobody
    app.state.services = Services(
        settings, factory, SignIn(factory), feed, kick, pace or Pace(), vault, _spent(dispatcher), Foresight(), carrier
    )
    for part in ROUTERS:
        app.include_router(part.router, prefix=PREFIX)
    app.include_router(_description(app), prefix=PREFIX)
    health.install(app)
    exposition.install(app)
    problems.install(app, [route for part in ROUTERS for route in part.router.routes if isinstance(route, Route)])
    app.add_middleware(Guard, limit_seconds=limit_seconds)
    return app


def _spent(dispatcher: Wakeable | None) -> Callable[[], Spent]:
    return lambda: dispatcher.spent if dispatcher else Spent()


def _nobody() -> None:
    """Wake no dispatcher: the database's own notice reaches those of other processes."""


def _description(app: FastAPI) -> APIRouter:
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        """The description of this interface."""
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app)
        return JSONResponse(app.openapi_schema)

    return router


def _openapi(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in (JobSpec, *BODIES)
    ]
    _, bodies = models_json_schema(models, ref_template="#/components/schemas/{model}")
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(bodies["$defs"])
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}]
    return schema
