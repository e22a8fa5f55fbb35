"""One installation on the engine: a copy of this tree with its own secrets, its compose project, its API."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stoker.client.client import Client
from tests.containers.commands import run
from tests.containers.engine import Engine
from tests.containers.psql import Psql
from tests.containers.torch_wheels import Torch
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
SERVICES = ("api", "flower", "worker-cpu")  # ours
OTHERS = {"redis": "999", "postgres": "999", "gateway": "99"}  # those beside them, and their users
WORKER_USER = "10001"
HOST = "172.30.255.1"  # the engine's own address on its first bridge: where containers find what others publish
TLS = "docker-compose.yml:docker/compose.tls.yml:tests/containers/override.yml:tests/containers/override.tls.yml"
PLAIN = "docker-compose.yml:tests/containers/override.yml"
REMOTE = "docker/compose.worker.yml:tests/containers/override.worker.yml"


class Installation:
    """What ``make compose-up`` or ``docker/worker.sh`` starts, in a folder and with ports of its own."""

    def __init__(self, engine: Engine, folder: Path, files: str, port: int, torch: Torch) -> None:
        """Copy the tree. ``files`` are those of Compose; ``port`` is the first of those that are published."""
        self.engine, self.folder, self.project = engine, folder, f"stoker-{folder.name}"
        self.ports = (port, port + 1)  # the API's and Flower's
        self.tls_port = port + 2  # the API's
        self._psql: Psql | None = None
        self._token = ""
        listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], folder=ROOT).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
        self.variables = {
            "COMPOSE_FILE": files,
            "COMPOSE_PROJECT_NAME": self.project,
            "API_PORT": str(port),
            "FLOWER_PORT": str(port + 1),
            "TLS_ADDRESS": HOST,
            "TLS_API_PORT": str(port + 2),
            "TLS_FLOWER_PORT": str(port + 3),
            "TLS_DATABASE_PORT": str(port + 4),
            "TLS_BROKER_PORT": str(port + 5),
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
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        return self.engine.containers(labels)

    def inside(self, container: str, *command: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        return self.engine.run("docker", "exec", container, *command, **how)

    def pids(self, container: str) -> set[int]:
        """The processes of a container, as the host counts them."""
        return {int(line) for line in self.engine.docker("top", container, "-eo", "pid").splitlines()[1:]}

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that the engine says of a container."""
        return self.engine.inspect(container)

    def health(self, container: str) -> str:
        """healthy, unhealthy or starting."""
        return str(self.inspect(container)["State"]["Health"]["Status"])

    def wait_health(self, container: str, wanted: str, seconds: float = 60) -> None:
        """Wait until the engine finds a container healthy, or not."""
        wait_for(lambda: self.health(container) == wanted, seconds, f"{container} to be {wanted}", 0.2)

    def sql(self, question: str) -> str:
        """What PostgreSQL answers, fields separated by ``|``."""
        if self._psql is None:
            self._psql = Psql(self.containers("postgres")[0], self.engine.environ)
        return self._psql.ask(question)

    def secrets(self) -> dict[str, str]:
        """The passwords, by the name of their file."""
        return {path.name: path.read_text() for path in (self.folder / "secrets").iterdir()}

    @property
    def token(self) -> str:
        """The administrator's."""
        if not self._token:
            self._token = self.compose("exec", "-T", "api", "cat", "/var/lib/stoker/token")
        return self._token

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[Client]:
        """A client of its API."""
        with Client(f"http://127.0.0.1:{self.ports[0]}", token or self.token) as client:
            yield client

    def down(self) -> None:
        """Stop and remove everything, volumes too."""
        if self._psql is not None:
            self._psql.close()
        self.compose("--profile", "cpu", "--profile", "gpu", "down", "--volumes", "--remove-orphans", "--timeout", "10")
