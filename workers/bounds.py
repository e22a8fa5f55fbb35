"""What jobs may touch on this machine: what every program needs of the host, what the administrator adds or forbids.

A job reads the system's programs and libraries, its own interpreter's, and what its order brings; it writes its scratch
folder alone. The cache of data sets is not among these: a job gets the one file that was prepared for it, read-only,
and the worker holds that file's lock. So no job reads another team's data, and none spoils what another trains on.
"""

import functools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stoker
from stoker.errors import ConfinementUnavailable
from stoker.settings import Settings
from stoker.workers import sandbox
from stoker.workers.sandbox import Confinement

_PROGRAMS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/alternatives")
_CONFIGURATION = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/fonts"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem"),
    *("/etc/ca-certificates", "/etc/crypto-policies", "/etc/mime.types", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols"),
)
_MACHINE = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/proc/version"),
    *("/proc/filesystems", "/proc/sys", "/sys/devices", "/sys/fs/cgroup", "/sys/kernel/mm"),
)
_NAMES = ("/etc/resolv.conf", "/run/systemd/resolve", "/run/NetworkManager/resolv.conf", "/run/resolvconf")
_DRIVER = (
    *("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/etc/nvidia"),
    *("/sys/bus", "/sys/class", "/sys/module"),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits that hold for every job of a worker."""

    network: str  # none | open: the most that a job may ask for
    readable: tuple[str, ...] = ()  # of the host, beside what every program needs
    unconfined: str = ""  # why jobs run without confinement here; empty: they are confined

    @classmethod
    def of(cls, settings: Settings) -> "Bounds":
        """What the settings say and the kernel can.

        Raises ConfinementUnavailable: the kernel cannot, and STOKER_CONFINEMENT does not allow jobs without.
        """
        able = sandbox.available()
        if isinstance(able, int):
            return cls(settings.network, settings.readable_folders)
        if settings.confinement == "required":
            raise ConfinementUnavailable(
                f"jobs cannot be confined here: {able}; STOKER_CONFINEMENT=best-effort runs them all the same, "
                "with everything that the worker's user may read and write"
            )
        return cls(settings.network, settings.readable_folders, unconfined=able)

    @property
    def banner(self) -> str:
        """What everybody is told who looks at a worker or a job here; empty: jobs are confined, nothing is missing."""
        if self.unconfined:
            return f"jobs are NOT confined here: {self.unconfined}"
        able = sandbox.available()
        found = sandbox.weaknesses(able) if isinstance(able, int) else {}
        return "; ".join(f"{problem}: {fix}" for problem, fix in found.items())

    def confinement(
        self,
        scratch: Path,
        *,
        network: bool = False,
        cpus: float = 1,
        memory_bytes: int | None = None,
        read_only: Iterable[str | Path] = (),
        read_write: Iterable[str | Path] = (),
        devices: tuple[str, ...] = (),
    ) -> dict[str, Any] | None:
        """The confinement of one process, for its order: it writes below its scratch folder; None: it has none.

        With ``network`` only where the administrator allows that.
        """
        if self.unconfined:
            return None
        network = network and self.network == "open"
        readable = [*_everywhere(), *self.readable, *map(str, read_only)]
        readable += [*(_NAMES if network else ()), *(_DRIVER if devices else ())]
        return Confinement(
            read_only=tuple(dict.fromkeys(readable)),
            read_write=(str(scratch), *map(str, read_write)),
            network=network,
            memory_bytes=memory_bytes,
            processes=sandbox.tasks(cpus),
            devices=devices,
            listable=(str(_package().parent),),
        ).to_document()


def interpreter() -> tuple[str, ...]:
    """The folders of this interpreter: its prefix, its packages, and Stoker's own code, which may lie anywhere."""
    package = _package()
    parts = [package, *(part.resolve() for part in package.iterdir() if part.is_symlink())]
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys(map(str, (sys.prefix, sys.base_prefix, sys.exec_prefix, *packages, *parts))))


def _package() -> Path:
    return Path(stoker.__file__).resolve().parent


@functools.cache
def _everywhere() -> tuple[str, ...]:
    """What every job reads, without what lies in another folder of these: each rule costs a job some of its start."""
    paths = (*_PROGRAMS, *_CONFIGURATION, *_MACHINE, *interpreter())
    real = {path: Path(path).resolve() for path in paths}
    folders = set(real.values())
    return tuple({real[path]: path for path in paths if folders.isdisjoint(real[path].parents)}.values())
