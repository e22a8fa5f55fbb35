"""The images that come from a registry elsewhere: the base from Debian's packages, the services as stand-ins on it."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.containers.commands import run
from tests.containers.engine import Engine
from tests.containers.machine import mirror

BASE = "python:3.11-slim-bookworm"
STANDINS = {"redis": "redis:7-bookworm", "postgres": "postgres:15-bookworm", "haproxy": "haproxy:3.0"}
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
EXCLUDED = ("usr/share/doc", "usr/share/man", "usr/share/locale")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def bootstrap(root: Path) -> Path:
    """Make the folder of the base image: Debian 12 with Python 3.11, and how this machine's pip finds packages."""
    tree = root / "base"
    tree.mkdir()
    run(["mount", "-t", "tmpfs", "stoker-base", tree])  # dpkg waits for the disk after each file
    (root / "fast").write_text("force-unsafe-io\n")
    run(
        [
            "mmdebstrap",  # half of debootstrap's time
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            f"--include={PACKAGES}",
            *(f"--dpkgopt=path-exclude=/{folder}/*" for folder in EXCLUDED),
            '--aptopt=APT::Sandbox::User "root"',
            f"--essential-hook=cp {root}/fast $1/etc/dpkg/dpkg.cfg.d/fast",
            "bookworm",
            tree,
            mirror(),
        ],
        seconds=600,
    )
    for name in ("python", "python3", "python3.11"):
        (tree / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    (tree / "usr/local/bin/pip").symlink_to("/usr/bin/pip3")
    for marker in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()  # the official image has none
    shutil.copy("/" / CERTIFICATES, tree / CERTIFICATES)
    (tree / "etc/pip.conf").write_text(_pip_conf())
    return tree


def _pip_conf() -> str:
    """What pip here was told, as far as it means something in a container."""
    lines = ["[global]", "find-links = /wheels", f"cert = /{CERTIFICATES}", "timeout = 180"]
    for name in PIP_SETTINGS:
        told = run([sys.executable, "-m", "pip", "config", "get", f"global.{name}"], check=False).stdout.split()
        if reachable := [word for word in told if not word.startswith("file:")]:
            lines.append(f"{name} = {' '.join(reachable)}")
    return "\n".join(lines) + "\n"


def load(engine: Engine, tree: Path, shelf: Path) -> None:
    """Give the base image to the engine under its official name, with the wheels of the shelf; remove the folder."""
    shutil.copytree(shelf, tree / "wheels")
    archive = tree.with_suffix(".tar")
    run(["tar", "-C", tree, "--numeric-owner", "-cf", archive, "."])
    run(["umount", tree])
    changes = ("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8", 'CMD ["python3"]')
    engine.docker("import", *(part for change in changes for part in ("--change", change)), archive, BASE)
    archive.unlink()


def build_standins(engine: Engine) -> None:
    """Build what is called Redis, PostgreSQL and HAProxy in the compose files."""
    here = Path(__file__).parent / "standins"
    base = ("--build-arg", f"PYTHON_IMAGE={BASE}")

    def build(name: str) -> None:
        engine.docker("build", "--quiet", "--network", "host", *base, "--target", name, "--tag", STANDINS[name], here)

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, STANDINS))
