"""A network of its own for one process, and the cable that can be pulled."""

import os
import shutil
import subprocess

INSTALL = "apt-get install iproute2, and run as root"


class Network:
    """A network namespace with one cable to us; without root or ``ip``, nothing but the loopback address."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Make it, where we may."""
        self._ip = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
        number = os.getpid() % 16000
        self._name, self._cable = f"stk{number}", f"stk{number}a"
        self._here = f"10.213.{number // 64}.{number % 64 * 4 + 1}"
        self._there = f"10.213.{number // 64}.{number % 64 * 4 + 2}"
        self.made = enabled and self._ip is not None and os.geteuid() == 0 and self._make()

    @property
    def host(self) -> str:
        """The address at which the process in it finds us."""
        return self._here if self.made else "127.0.0.1"

    @property
    def prefix(self) -> list[str]:
        """What a command begins with that is to run in it."""
        return [str(self._ip), "netns", "exec", self._name] if self.made else []

    def _make(self) -> bool:
        other = self._cable[:-1] + "b"
        steps = (
            f"netns add {self._name}",
            f"link add {self._cable} type veth peer name {other} netns {self._name}",
            f"addr add {self._here}/30 dev {self._cable}",
            f"link set {self._cable} up",
            f"-n {self._name} addr add {self._there}/30 dev {other}",
            f"-n {self._name} link set {other} up",
            f"-n {self._name} link set lo up",
        )
        if all(self._run(step) for step in steps):
            return True
        self._remove()
        return False

    def pull(self) -> None:
        """Pull the cable: packets vanish, and nobody is told."""
        self._run(f"link set {self._cable} down")

    def plug(self) -> None:
        """Plug it in again."""
        self._run(f"link set {self._cable} up")

    def remove(self) -> None:
        """Remove what was made."""
        if self.made:
            self._remove()

    def _remove(self) -> None:
        self._run(f"link del {self._cable}")
        self._run(f"netns del {self._name}")

    def _run(self, step: str) -> bool:
        return subprocess.run([str(self._ip), *step.split()], check=False, capture_output=True).returncode == 0
