"""The machine under the engine: whether one can run here, and what of it must be as before afterwards."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("runc", "iptables", "tini", "debootstrap")
NEEDED_BYTES = 12 * 10**9
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = ("filter", "nat")


class Hindrance(Exception):
    """No engine can run here; says why, and what to do."""


def require() -> None:
    """Raises Hindrance."""
    if os.geteuid() != 0:
        raise Hindrance("an engine needs root: sudo make containers")
    if shutil.which("apt-get") is None or not KEYRING.exists():
        raise Hindrance("the engine comes from Debian's packages: run this on Debian 12 or 13")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise Hindrance(f"{', '.join(missing)} cannot be installed: apt-get install {' '.join(TOOLS)}")
    if shutil.disk_usage("/tmp").free < NEEDED_BYTES:
        raise Hindrance(f"/tmp has less than {NEEDED_BYTES / 10**9:.0f} GB free: free some")


def install_tools() -> None:
    """Install what is missing, if this is root's Debian; ``require`` tells what is still missing."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or all(map(shutil.which, TOOLS)):
        return
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *TOOLS]
    subprocess.run(install, env=quiet, check=False, stdout=subprocess.DEVNULL)


def mirror() -> str:
    """The address from which this machine takes its Debian packages."""
    for source in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        for line in source.read_text().splitlines() if source.exists() else ():
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]):
                return next(word for word in words if "://" in word).rstrip("/")
    return "http://deb.debian.org/debian"


@dataclass(frozen=True, slots=True)
class Network:
    """What an engine changes of a machine's network."""

    forwarding: str
    bridges: frozenset[str]
    rules: tuple[tuple[str, str], ...]  # table, and what iptables-save says of it

    @classmethod
    def now(cls) -> "Network":
        """As it is."""
        links = _output("ip", "-o", "link", "show", "type", "bridge").splitlines()
        bridges = frozenset(link.split(": ")[1] for link in links)
        return cls(FORWARDING.read_text(), bridges, tuple((table, _rules(table)) for table in TABLES))

    def restore(self) -> None:
        """Take away the bridges that came since, and put the firewall back."""
        for bridge in Network.now().bridges - self.bridges:
            subprocess.run(["ip", "link", "delete", bridge], check=True)
        for table, rules in self.rules:
            subprocess.run(
                ["iptables-restore", "-T", table], input=f"*{table}\n{rules}\nCOMMIT\n", text=True, check=True
            )
        FORWARDING.write_text(self.forwarding)


def _rules(table: str) -> str:
    """The chains with their policies and the rules, without counters; a table that is not there has none."""
    lines = _output("iptables-save", "-t", table).splitlines()
    return "\n".join(line.split(" [")[0] + " [0:0]" if line[0] == ":" else line for line in lines if line[0] in ":-")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
