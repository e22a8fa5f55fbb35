"""One installation on the engine: a copy of this tree with its own secrets, its compose project, its API."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stoker.client.client import Client
from tests.containers.commands import run
from tests.containers.engine import Engine
from tests.containers.torch_wheels import Torch
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SERVICES = ("api", "flower", "worker-cpu")  # ours, beside redis and postgres
WORKER_USER = "10001"


class Installation:
    """What ``make compose-up`` starts, in a folder and with ports of its own."""

    def __init__(self, engine: Engine, folder: Path, project: str, ports: tuple[int, int], torch: Torch) -> None:
        """Copy the tree. ``ports`` are those of the API and of Flower."""
        self.engine, self.folder, self.project, self.ports = engine, folder, project, ports
        listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], folder=ROOT).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
        self.variables = {
            "COMPOSE_FILE": "docker-compose.yml:tests/containers/override.yml",
            "COMPOSE_PROJECT_NAME": project,
            "API_PORT": str(ports[0]),
            "FLOWER_PORT": str(ports[1]),
            "LEASE_SECONDS": "5",
            "CPU_WORKER_MEMORY": "1500m",
            "TORCH_CPU_INDEX_URL": torch.index,
            "TORCH_GPU_INDEX_URL": torch.index,  # no GPU is there: the same layers
        } | ({"TORCH": torch.requirement} if torch.requirement else {})

    def script(self, name: str, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a script of ``docker/``."""
        variables = self.variables | how.pop("variables", {})
        return self.engine.run("sh", f"docker/{name}", *arguments, folder=self.folder, variables=variables, **how)

    def compose(self, *arguments: str, **how: Any) -> str:
        """What ``docker compose ARGUMENTS…`` prints."""
        variables = self.variables | how.pop("variables", {})
        return self.engine.docker("compose", *arguments, folder=self.folder, variables=variables, **how)

    def containers(self, service: str) -> list[str]:
        """The names of a service's running containers."""
        listed = self.compose("ps", "--format", "{{.Name}}", service).split()
        return sorted(listed)

    def inside(self, container: str, *command: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        return self.engine.run("docker", "exec", container, *command, **how)

    def pids(self, container: str) -> set[int]:
        """The processes of a container, as the host counts them."""
        return {int(line) for line in self.engine.docker("top", container, "-eo", "pid").splitlines()[1:]}

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that the engine says of a container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", container))[0]
        return found

    def health(self, container: str) -> str:
        """healthy, unhealthy or starting."""
        return str(self.inspect(container)["State"]["Health"]["Status"])

    def wait_health(self, container: str, wanted: str, seconds: float = 60) -> None:
        """Wait until the engine finds a container healthy, or not."""
        wait_for(lambda: self.health(container) == wanted, seconds, f"{container} to be {wanted}")

    def sql(self, question: str) -> str:
        """What PostgreSQL answers, fields separated by ``|``."""
        ask = 'PGPASSWORD=$(cat /run/secrets/postgres_password) exec psql --host 127.0.0.1 --username stoker -Atc "$1"'
        return self.compose("exec", "-T", "postgres", "sh", "-c", ask, "sh", question)

    def secrets(self) -> dict[str, str]:
        """The passwords, by the name of their file."""
        return {path.name: path.read_text() for path in (self.folder / "secrets").iterdir()}

    @property
    def token(self) -> str:
        """The administrator's."""
        return self.compose("exec", "-T", "api", "cat", "/var/lib/stoker/token").strip()

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[Client]:
        """A client of its API."""
        with Client(f"http://127.0.0.1:{self.ports[0]}", token or self.token) as client:
            yield client

    def down(self) -> None:
        """Stop and remove everything, volumes too."""
        self.compose("--profile", "gpu", "down", "--volumes", "--remove-orphans", "--timeout", "10")
