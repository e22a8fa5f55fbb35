"""Whether this process lives, and whether it can work. These two alone are told to everybody."""

from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from stoker.api.services import Services
from stoker.jobs.database import ready
from stoker.jobs.leases import broker_down

ADDRESSES = ("/healthz", "/readyz")


def install(app: Starlette) -> None:
    """Add both, outside of the routes that ask for a token."""
    app.router.add_route("/healthz", healthz, ["GET"])
    app.router.add_route("/readyz", readyz, ["GET"])


async def healthz(_: Request) -> JSONResponse:
    """Answer."""
    return JSONResponse({"alive": True})


async def readyz(request: Request) -> JSONResponse:
    """Whether the database answers with the right schema; what is known of the broker is told, but not needed."""
    state = await run_in_threadpool(_look, request.app.state.services)
    able = state["database"] == "ok"
    return JSONResponse({"ready": able} | state, 200 if able else 503, {} if able else {"Retry-After": "2"})


def _look(services: Services) -> dict[str, str]:
    try:
        with services.sessions() as session:
            if not ready(session):
                return {"database": "another schema", "broker": "not asked"}
            return {"database": "ok", "broker": "not reached" if broker_down(session) else "ok"}
    except SQLAlchemyError:
        return {"database": "not reached", "broker": "not asked"}
