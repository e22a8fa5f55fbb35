"""Which torch the test's worker image gets: the smallest that this machine can have, for nothing here has a GPU."""

import json
import shutil
import sys
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.containers.commands import run

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWER_SECONDS = 10
FOR_IMAGE = ("--python-version", "3.11", "--only-binary", ":all:")


@dataclass(frozen=True, slots=True)
class Torch:
    """What ``docker/Dockerfile`` is told."""

    requirement: str | None  # None: what stands there
    index: str  # empty: pip's usual one
    told: str  # for people


def choose(shelf: Path) -> Torch:
    """Take the CPU's wheel from a folder that pip here looks into, putting it on the shelf, or name an index."""
    folders = run([sys.executable, "-m", "pip", "config", "get", "global.find-links"], check=False).stdout.split()
    folders += run([sys.executable, "-m", "pip", "config", "get", ":env:.find-links"], check=False).stdout.split()
    wheels = [wheel for folder in folders for wheel in Path(folder).glob("torch-*+cpu-cp311-*x86_64.whl")]
    if wheels:
        version = wheels[0].name.split("-")[1]
        shutil.copy(wheels[0], shelf)
        vision = _torchvision_for(version, shelf)
        return Torch(f"torch=={version} torchvision=={vision}", "", f"torch {version} from a folder of this machine")
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=ANSWER_SECONDS):
            return Torch(None, CPU_INDEX, "torch for the CPU from its own index")
    except OSError:
        return Torch(None, "", "torch with its CUDA, several GB: no smaller one was found")


def _torchvision_for(torch: str, shelf: Path) -> str:
    """Put the torchvision that fits on the shelf; returns its version.

    The one of the usual index has operators for CUDA's torch alone and cannot be imported without them. Models need
    none of them, so they are taken out.
    """
    report = _pip("install", "--dry-run", "--ignore-installed", "--target", shelf, "--report", "-", *FOR_IMAGE,
                  "--find-links", shelf, f"torch=={torch}", "torchvision")  # fmt: skip
    chosen = {one["metadata"]["name"]: one["metadata"]["version"] for one in json.loads(report)["install"]}
    version = str(chosen["torchvision"])
    _pip("download", "--no-deps", "--dest", shelf, *FOR_IMAGE, f"torchvision=={version}")
    return _without_operators(next(shelf.glob("torchvision-*.whl")), version)


def _pip(*arguments: str | Path) -> str:
    return run([sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:]]).stdout


def _without_operators(wheel: Path, version: str) -> str:
    """Replace a wheel by one without compiled code, under a version of its own; returns that."""
    named = f"{version}+python"
    kept: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel) as full:
        for name in full.namelist():
            if not name.endswith(("/", "/RECORD")) and ".so" not in Path(name).name:
                kept[name.replace(f"-{version}.dist-info", f"-{named}.dist-info")] = full.read(name)
    kept["torchvision/_meta_registrations.py"] = b""
    about = f"torchvision-{named}.dist-info/METADATA"
    kept[about] = kept[about].replace(f"Version: {version}".encode(), f"Version: {named}".encode(), 1)
    kept[f"torchvision-{named}.dist-info/RECORD"] = "".join(f"{name},,\n" for name in kept).encode()
    with zipfile.ZipFile(wheel.with_name(wheel.name.replace(version, named, 1)), "w", zipfile.ZIP_DEFLATED) as slim:
        for name, content in kept.items():
            slim.writestr(name, content)
    wheel.unlink()
    return named
