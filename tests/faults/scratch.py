"""A scratch folder that can be full."""

import os
import subprocess
from pathlib import Path

SIZE = 16 * 2**20
FILLER = "filler"


class Scratch:
    """A worker's scratch folder on a small disk of its own, where we may make one."""

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        """Make it, where we may: as root, outside of a container that forbids it."""
        self._folder = folder
        self.made = enabled and os.geteuid() == 0 and self._make()

    def _make(self) -> bool:
        self._folder.mkdir(mode=0o700, parents=True)
        options = ["-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(self._folder)]
        return subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Take all the room there is."""
        with (self._folder / FILLER).open("wb", buffering=0) as file:
            try:
                while file.write(bytes(64 * 1024)):
                    pass
            except OSError:
                pass  # full

    def clear(self) -> None:
        """Give it back."""
        (self._folder / FILLER).unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it."""
        if self.made:
            subprocess.run(["umount", "-l", str(self._folder)], check=False, capture_output=True)
