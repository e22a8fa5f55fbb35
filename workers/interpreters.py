"""The Python that a program of the user's runs with: what is installed there, and which commands it may call."""

import os
import platform
import re
import shutil
import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import stoker
from stoker.training.failure import TrainingFailed

SAFE_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
PACKAGES_LIMIT = 2000
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_PYTHONS = ("python", "python3", f"python{_VERSION}")
_OTHER_PYTHON = re.compile(r"python[0-9.]*")
_INSTALLED = re.compile(r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[A-Za-z0-9.!+_]+)\.(dist|egg)-info")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and where its packages lie; of a package that lies in several folders, the first counts."""

    python: Path
    packages: tuple[Path, ...]

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that it reads of itself.

        Nothing inside its own prefix is named: what a package's installation made a link of would lead out of there.
        """
        prefix = self.python.parents[1]
        return (prefix, *(folder for folder in self.packages if not folder.is_relative_to(prefix)))

    @property
    def path(self) -> str:
        """The value of PATH for its programs."""
        return os.pathsep.join([str(self.python.parent), *SAFE_PATH])

    def command(self, command: Sequence[str], code: Path) -> tuple[str, list[str]]:
        """The file to execute and its arguments, for a command that was given in the folder of the code.

        Raises TrainingFailed.
        """
        name = command[0]
        if name in _PYTHONS:
            return str(self.python), [str(self.python), *command[1:]]
        if _OTHER_PYTHON.fullmatch(name):
            raise _refused(f"there is no {name} here", f"write python: on this worker that is Python {_VERSION}")
        found = None if "/" in name else shutil.which(name, path=self.path)
        return found or str(_in_code(name, code)), list(command)

    def installed(self) -> dict[str, str]:
        """Name and version of each package, by the folders in which they say so: nothing is imported or run."""
        found: dict[str, str] = {}
        for folder in self.packages:
            for entry in sorted(folder.iterdir() if folder.is_dir() else ()):
                if (match := _INSTALLED.fullmatch(entry.name)) and len(found) < PACKAGES_LIMIT:
                    found.setdefault(match["name"].replace("_", "-").lower(), match["version"])
        return found


def of_worker() -> Interpreter:
    """The Python that runs this worker."""
    return Interpreter(Path(sys.executable), tuple(map(Path, site.getsitepackages())))


def version() -> str:
    """Of every Python here: environments are made for that of the worker."""
    return platform.python_version()


def stoker_on_path() -> tuple[Path, ...]:
    """What every program's interpreter finds besides its packages: stoker itself, and the file it starts with."""
    package = Path(stoker.__file__).parent
    return (package, *(package / "training" / "startup").glob("*.py"))


def _in_code(name: str, code: Path) -> Path:
    path = code / name
    if not path.is_file():
        raise _refused(
            f"there is no command {name}",
            "name a program of the worker's /usr/bin, or a file of the code (is it left out by .gitignore?)",
        )
    if not os.access(path, os.X_OK):
        with_python = name.endswith(".py")
        raise _refused(
            f"{name} is not executable", f"write: python {name}" if with_python else f"chmod +x {name}, or: bash {name}"
        )
    return path


def _refused(evidence: str, fix: str) -> TrainingFailed:
    return TrainingFailed("user_error", evidence, fix)
