"""What asks NVML, on a library that is made up in a folder: ``python -m tests.support.made_up_nvml FOLDER WORD``.

``errors`` there has a line ``UUID NUMBER`` for each error that ever came, in their order; ``lost`` the UUIDs of GPUs
that do not answer. As with NVML, a set has the errors that come after a GPU was registered in it, a GPU that was lost
has to be registered again, and one that is lost can be asked nothing.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pynvml

from stoker.workers import nvml

UUIDS = ("GPU-1", "GPU-2")


class Library:
    """The calls that are made; a GPU is its UUID, an event set is a list of it and how many errors it has told."""

    def __init__(self, folder: Path) -> None:
        """Everything is read anew at each call."""
        self.folder = folder

    def _lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()

    def _errors(self, gpu: str) -> list[int]:
        return [int(line.split()[1]) for line in self._lines("errors") if line.split()[0] == gpu]

    def handle(self, index: int) -> str:
        """A GPU by number."""
        if UUIDS[index] in self._lines("lost"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return UUIDS[index]

    def register(self, gpu: str, _kind: int, awaited: list[object]) -> None:
        """Begin to record."""
        awaited += [gpu, len(self._errors(gpu))]

    def wait(self, awaited: list[object], milliseconds: int) -> SimpleNamespace:
        """The next error of a set."""
        until = time.monotonic() + milliseconds / 1000
        while True:
            if awaited[0] is None or awaited[0] in self._lines("lost"):
                awaited[0] = None
                raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
            gpu, told = str(awaited[0]), int(str(awaited[1]))
            if len(come := self._errors(gpu)) > told:
                awaited[1] = told + 1
                return SimpleNamespace(device=gpu, eventData=come[told])
            if time.monotonic() > until:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
            time.sleep(0.01)

    def install(self) -> None:
        """Put them in place; fails for a name that the library does not have."""
        calls = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(UUIDS),
            "nvmlDeviceGetHandleByIndex": self.handle,
            "nvmlDeviceGetMigMode": lambda _: (0, 0),
            "nvmlDeviceGetUUID": lambda gpu: gpu,
            "nvmlDeviceGetMemoryInfo": lambda *_, **__: SimpleNamespace(used=0),
            "nvmlDeviceGetComputeRunningProcesses": lambda _: [],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda _: [],
            "nvmlEventSetCreate": list,
            "nvmlDeviceRegisterEvents": self.register,
            "nvmlEventSetWait_v2": self.wait,
        }
        for name, call in calls.items():
            getattr(pynvml, name)
            setattr(pynvml, name, call)


if __name__ == "__main__":
    Library(Path(sys.argv.pop(1))).install()
    nvml.main()
