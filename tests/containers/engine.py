"""A Docker engine of our own: Debian's packages unpacked into a folder, started, and taken down without a trace."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.containers.commands import run
from tests.containers.machine import KEYRING, Network, mirror
from tests.support.waiting import wait_for

PACKAGES = ("docker.io", "docker-cli", "containerd", "docker-compose", "docker-buildx")
RELEASE = "trixie"  # its Docker 26 and Compose 2.26 need libc6 2.34 only, so they run on Debian 12, too
ADDRESSES = ("--bip", "172.30.255.1/24", "--default-address-pool", "base=172.30.0.0/17,size=24")
HOOK = "nvidia-container-runtime-hook"  # on its PATH, dockerd knows NVIDIA's devices; ours does nothing


class Engine:
    """dockerd with everything it has in ``root``."""

    def __init__(self, root: Path) -> None:
        """Nothing is started."""
        self.root = root
        self._pid_file, self._unpacked, self.programs = root / "docker.pid", root / "packages", root / "bin"
        path = [self.programs, self._unpacked / "usr/sbin", self._unpacked / "usr/bin", os.environ["PATH"]]
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")} | {
            "PATH": ":".join(map(str, path)),
            "DOCKER_HOST": f"unix://{root}/docker.sock",
            "DOCKER_CONFIG": str(root / "config"),
        }
        self._network: Network | None = None

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
        self._network = Network.now()
        roots = ("--data-root", self.root / "data", "--exec-root", self.root / "exec", "--pidfile", self._pid_file)
        command = ["dockerd", *map(str, roots), "-H", self.environ["DOCKER_HOST"], *ADDRESSES]
        with (self.root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers, 60, f"dockerd; see {self.root}/dockerd.log")

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"dockerd ended; see {self.root}/dockerd.log"
        return self.run("docker", "info", check=False).returncode == 0

    def stop(self) -> None:
        """End it, and leave the machine as it was found; harmless when it does not run."""
        if self._network is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._end_rest()
        self._network.restore()

    def _end_rest(self) -> None:
        """Whatever still runs from our folder or in a container, and is mounted in it."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.processes(), 10, "the end of the engine's processes")
        for mount in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mount], check=False)
        for group in Path("/sys/fs/cgroup").glob("*/docker"):
            for empty in sorted(group.glob("**/"), reverse=True):
                empty.rmdir()

    def processes(self) -> list[int]:
        """The processes that were started from our folder, and those in containers."""
        mark = f"{self.root}/".encode()
        groups = Path("/sys/fs/cgroup/pids").glob("docker/**/cgroup.procs")
        found = [int(pid) for group in groups for pid in group.read_text().split()]
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended
        return found

    def mounts(self) -> list[str]:
        """What is mounted in our folder, in the order of mounting."""
        lines = Path("/proc/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.root}/")]

    def as_found(self) -> bool:
        """Whether nothing of it is left in the machine."""
        return self._network == Network.now() and not self.processes() and not self.mounts()

    def run(self, *command: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command that speaks with this engine, as ``commands.run`` does."""
        return run(command, environ=self.environ | how.pop("variables", {}), **how)

    def docker(self, *arguments: str | Path, **how: Any) -> str:
        """What ``docker ARGUMENTS…`` prints, without the line's end."""
        return self.run("docker", *arguments, **how).stdout.strip()


def _link(name: Path, target: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(target)
