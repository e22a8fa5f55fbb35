"""An API that accepts a job and never says so, to be killed: ``python -m tests.support.answering URL HOME SOCKET``.

It serves on a unix socket, and says on stdout that a job is committed; the answer does not follow.
"""

import dataclasses
import sys
from pathlib import Path

import uvicorn

from stoker.api.app import create_app
from stoker.settings import Settings
from tests.support.dispatching import stay


def main(url: str, home: str, socket: str) -> None:
    """Serve until killed."""
    app = create_app(Settings(database_url=url, home=Path(home)))
    app.state.services = dataclasses.replace(app.state.services, kick=stay)  # called as soon as the job is committed
    uvicorn.run(app, uds=socket, log_config=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
