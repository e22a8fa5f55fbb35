"""A Docker engine of our own: Debian's packages unpacked into a folder, started, and taken down without a trace."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.containers.commands import CommandFailed, run
from tests.containers.machine import KEYRING, mirror
from tests.containers.network import Network
from tests.support.waiting import wait_for

PACKAGES = ("docker.io", "docker-cli", "containerd", "docker-compose", "docker-buildx")
RELEASE = "trixie"  # its Docker 26 and Compose 2.26 need libc6 2.34 only, so they run on Debian 12, too
ADDRESSES = ("--bip", "172.30.255.1/24", "--default-address-pool", "base=172.30.0.0/17,size=24")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_SECONDS = 30
MARK = "STOKERS_ENGINE"  # in the environment of all that we start, with our folder: so it is found after a kill, too
GROUP = "stokers-engine"  # the control group of all containers and builds, beside another engine's `docker`
GROUPS = ("--cgroup-parent", f"/{GROUP}", "--exec-opt", "native.cgroupdriver=cgroupfs")  # systemd's has other names
HOOK = "nvidia-container-runtime-hook"  # on its PATH, dockerd knows NVIDIA's devices; ours does nothing


class Engine:
    """dockerd with everything it has in ``root``."""

    def __init__(self, root: Path) -> None:
        """Nothing is started."""
        self.root = root
        self._found, self._unpacked, self.programs = root / "found.json", root / "packages", root / "bin"
        os.environ[MARK] = str(root)
        path = [self.programs, self._unpacked / "usr/sbin", self._unpacked / "usr/bin", os.environ["PATH"]]
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")} | {
            "PATH": ":".join(map(str, path)),
            "DOCKER_HOST": f"unix://{root}/docker.sock",
            "DOCKER_CONFIG": str(root / "config"),
        }
        self._api = httpx.Client(
            transport=httpx.HTTPTransport(uds=f"{root}/docker.sock"), base_url="http://engine", timeout=30
        )

    def fetch(self) -> None:
        """Download and unpack the packages, unless they are there."""
        plugins, unpacked = self.root / "config/cli-plugins", self._unpacked / "usr/libexec/docker/cli-plugins"
        if not unpacked.exists():
            self._download()
        plugins.mkdir(parents=True, exist_ok=True)
        self.programs.mkdir(exist_ok=True)
        for plugin in unpacked.iterdir():
            _link(plugins / plugin.name, plugin)
        _link(self.programs / "docker-init", Path("/usr/bin/tini-static"))
        (self.programs / HOOK).write_text("#!/bin/sh\nexit 0\n")
        (self.programs / HOOK).chmod(0o755)

    def _download(self) -> None:
        apt = self.root / "apt"
        for folder in ("lists/partial", "cache/archives/partial", "debs"):
            (apt / folder).mkdir(parents=True, exist_ok=True)
        (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {RELEASE} main\n")
        options = {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::Lists": apt / "lists",
            "Dir::Cache": apt / "cache",
            "APT::Sandbox::User": "root",
        }
        get = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        run([*get, "update"])
        run([*get, "download", *PACKAGES], folder=apt / "debs")
        for package in (apt / "debs").glob("*.deb"):
            run(["dpkg", "-x", package, self._unpacked])
        shutil.rmtree(apt)

    def start(self) -> None:
        """Start it and wait until it answers."""
        Network.now().save(self._found)
        roots = ("--data-root", self.root / "data", "--exec-root", self.root / "exec", "--pidfile", self.root / "pid")
        command = ["dockerd", *map(str, roots), "-H", self.environ["DOCKER_HOST"], *ADDRESSES, *GROUPS]
        with (self.root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, 60, f"dockerd; see {self.root}/dockerd.log")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"dockerd ended; see {self.root}/dockerd.log"
        return self.run("docker", "info", check=False).returncode == 0

    def stop(self) -> None:
        """End it, and leave the machine as it was found; also after a run that was killed, and harmless when none was.

        A signal that comes meanwhile waits: nothing would do the rest.
        """
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        try:
            self._end(signal.SIGTERM, [pid for pid in self.processes() if _program(pid) == "dockerd"])
            self._end(signal.SIGKILL, self.processes())
            for mount in reversed(self.mounts()):
                subprocess.run(["umount", "--lazy", mount], check=False)
            for group in groups():
                for empty in sorted(group.glob("**/"), reverse=True):
                    empty.rmdir()
            if self._found.exists():
                Network.load(self._found).restore(alone=self._alone())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        with suppress(AssertionError):  # what is left of them is the next one's, or is told in the end
            wait_for(lambda: not set(pids) & set(self.processes()), END_SECONDS, "their end", 0.1)

    def processes(self) -> list[int]:
        """The processes that we started, those that have their root in our folder, and those in containers."""
        files = [file for group in groups() for file in group.glob("**/cgroup.procs")]
        found = {int(pid) for file in files for pid in file.read_text().split()}
        mark = f"{MARK}={self.root}\0".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                root = str((entry / "root").readlink())
                if mark in (entry / "environ").read_bytes() or root.startswith(f"{self.root}/"):
                    found.add(int(entry.name))
            except OSError:
                continue  # it has ended
        return sorted(found - {os.getpid()})

    def mounts(self) -> list[str]:
        """What is mounted in our folder, in the order of mounting."""
        lines = Path("/proc/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.root}/")]

    def left(self) -> list[str]:
        """What of it is left in the machine, in words."""
        running = [f"process {pid}: {_program(pid)}" for pid in self.processes()]
        network = Network.load(self._found).left(alone=self._alone()) if self._found.exists() else []
        return running + self.mounts() + network

    def _alone(self) -> bool:
        """Whether no other engine uses the network that ours used."""
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        engines = {pid for pid in pids if _program(pid) == "dockerd" and _network(pid) == _network(os.getpid())}
        return engines <= set(self.processes())

    def containers(self, labels: list[str]) -> list[str]:
        """The names of the running containers with these labels."""
        listed = self._ask("/containers/json", filters=json.dumps({"label": labels}))
        return sorted(one["Names"][0].lstrip("/") for one in listed)

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that the engine says of a container; raises CommandFailed."""
        found: dict[str, Any] = self._ask(f"/containers/{container}/json")
        return found

    def _ask(self, path: str, **parameters: str) -> Any:
        """A question to the engine itself: it is asked a lot, and its command line takes twenty times as long."""
        answer = self._api.get(path, params=parameters)
        if answer.status_code != httpx.codes.OK:
            raise CommandFailed(f"{path}: {answer.text.strip()}")
        return answer.json()

    def run(self, *command: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that speaks with this engine, as ``commands.run`` does."""
        return run(command, environ=self.environ | how.pop("variables", {}), **how)

    def docker(self, *arguments: str | Path, **how: Any) -> str:
        """What ``docker ARGUMENTS…`` prints, without the line's end."""
        return self.run("docker", *arguments, **how).stdout.strip()


def groups(top: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """The control groups of our containers and builds, in both versions."""
    return [group for pattern in (GROUP, f"*/{GROUP}") for group in top.glob(pattern)]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"


def _network(pid: int) -> str:
    """The network in which a process is."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return "ended"


def _link(name: Path, target: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(target)
