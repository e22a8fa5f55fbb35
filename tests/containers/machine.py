"""The machine under the engine: whether one can run here, and what must be installed for it."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.containers.commands import run

TOOLS = {  # a program, and Debian's package that has it
    "runc": "runc",
    "iptables": "iptables",
    "tini-static": "tini",
    "mmdebstrap": "mmdebstrap",
    "openssl": "openssl",
    "ip": "iproute2",
}
NEEDED_BYTES = 12 * 10**9
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PROBE = "stoker-probe"  # a bridge that is there for a moment


class Hindrance(Exception):
    """No engine can run here; says why, and what to do."""


def require() -> None:
    """Raises Hindrance."""
    if os.geteuid() != 0:
        raise Hindrance("an engine needs root: sudo make containers")
    if shutil.which("apt-get") is None or not KEYRING.exists():
        raise Hindrance("the engine comes from Debian's packages: run this on Debian 12 or 13")
    if absent := _absent():
        raise Hindrance(f"{', '.join(absent)} cannot be installed: apt-get install {' '.join(absent)}")
    if shutil.disk_usage("/tmp").free < NEEDED_BYTES:
        raise Hindrance(f"/tmp has less than {NEEDED_BYTES / 10**9:.0f} GB free: free some")


def require_kernel() -> None:
    """What an engine asks of the kernel and of those who run beside it. Raises Hindrance."""
    if shutil.which("modprobe"):
        run(["modprobe", "--all", "overlay", "bridge", "veth"], check=False)
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        raise Hindrance("the kernel has no overlay file system: modprobe overlay")
    rules = run(["iptables-save"], check=False)
    if run(["iptables", "--table", "nat", "--list", "--numeric"], check=False).returncode != 0:
        raise Hindrance("the kernel translates no addresses (iptables, table nat): modprobe iptable_nat")
    if ":DOCKER " in rules.stdout:
        raise Hindrance("another Docker engine uses the firewall: systemctl stop docker.socket docker, then again")
    if run(["ip", "link", "add", PROBE, "type", "bridge"], check=False).returncode != 0:
        raise Hindrance("bridges cannot be made here: modprobe bridge, and run this with CAP_NET_ADMIN")
    run(["ip", "link", "delete", PROBE])


def _absent() -> list[str]:
    """The packages whose programs are not there."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None]


def install_tools() -> None:
    """Install what is missing, if this is root's Debian; ``require`` tells what is still missing."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or not _absent():
        return
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=False)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_absent()]
    subprocess.run(install, env=quiet, check=False, stdout=subprocess.DEVNULL)


def mirror() -> str:
    """The address from which this machine takes its Debian packages."""
    for source in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        for line in source.read_text().splitlines() if source.exists() else ():
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]):
                return next(word for word in words if "://" in word).rstrip("/")
    return "http://deb.debian.org/debian"
