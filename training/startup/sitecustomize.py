"""Loaded by each interpreter of a job before anything else.

What Python and torch do through sockets and /dev/shm, which a confined job does not have, is done without, or fails
with a sentence that says why.

Locks and queues of ``multiprocessing`` stand on eventfds, tensors travel through queues by value. It imports nothing
heavy, and nothing of Stoker: interpreters of all kinds read it.
"""

import _multiprocessing  # type: ignore[import-not-found]  # typeshed leaves it out
import faulthandler
import importlib.abc
import importlib.machinery
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn, Self

WHY = "{} needs a unix socket with a path, which jobs do not have: use {}"


class SemLock:
    """The semaphore below all locks and queues of ``multiprocessing``, on an eventfd; see Modules/_multiprocessing."""

    SEM_VALUE_MAX = 2**31 - 1
    name = None  # of a file; there is none

    def __init__(self, kind: int, value: int, maxvalue: int, name: str = "", unlink: bool = True) -> None:
        """``kind`` 0 is a lock that its owner may take again, 1 a semaphore."""
        del name, unlink
        self._begin(os.eventfd(value, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC), kind, maxvalue)

    def _begin(self, descriptor: int, kind: int, maxvalue: int) -> None:
        self._descriptor, self.kind, self.maxvalue = descriptor, kind, maxvalue
        self._taken, self._owner = 0, 0

    @classmethod
    def _rebuild(cls, handle: int, kind: int, maxvalue: int, name: None) -> Self:
        del name
        made = cls.__new__(cls)
        made._begin(handle, kind, maxvalue)
        return made

    @property
    def handle(self) -> int:
        """The descriptor; when a process is being spawned, it is one that it will have too."""
        popen = sys.modules["multiprocessing.context"].get_spawning_popen()
        return int(popen.duplicate_for_child(self._descriptor)) if popen else self._descriptor

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one; False if there is none in time."""
        if self.kind == 0 and self._is_mine():
            self._taken += 1
            return True
        until = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while True:
            try:
                os.eventfd_read(self._descriptor)
            except BlockingIOError:
                left = None if until is None else until - time.monotonic()
                if not block or (left is not None and left <= 0):
                    return False
                _wait(self._descriptor, left)
            else:
                self._taken, self._owner = self._taken + 1, threading.get_ident()
                return True

    def release(self) -> None:
        """Give one back."""
        if self.kind == 0:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._taken > 1:
                self._taken -= 1
                return
        elif self.maxvalue == 1 and not self._is_zero():
            raise ValueError("semaphore or lock released too many times")
        self._taken -= 1
        os.eventfd_write(self._descriptor, 1)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        try:
            os.close(self._descriptor)
        except (OSError, AttributeError, TypeError):
            pass  # the interpreter ends

    def _count(self) -> int:
        return self._taken

    def _is_mine(self) -> bool:
        return self._taken > 0 and self._owner == threading.get_ident()

    def _get_value(self) -> int:
        """How many are left; as on macOS, more than one cannot be counted."""
        if self.maxvalue == 1 or self._is_zero():
            return int(not self._is_zero())
        raise NotImplementedError("how full a queue is cannot be told inside a job; full() and empty() can")

    def _is_zero(self) -> bool:
        return not _wait(self._descriptor, 0)

    def _after_fork(self) -> None:
        self._taken = 0


def _wait(descriptor: int, seconds: float | None) -> bool:
    """Wait until there is something to take; False if there is nothing in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else math.ceil(seconds * 1000)))


def _refuse(what: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(WHY.format(what, instead))

    return refuse


def _managers(module: ModuleType) -> None:
    refuse = _refuse("multiprocessing.Manager", "a Queue or a Pipe, or Value and Array")
    module.BaseManager.start = module.BaseManager.connect = refuse


def _forkserver(module: ModuleType) -> None:
    refuse = _refuse("the start method forkserver", "fork or spawn")
    module.ForkServer.ensure_running = module.ForkServer.connect_to_new_process = refuse


def _heap(module: ModuleType) -> None:
    module.Arena._dir_candidates = []  # not /dev/shm: the temporary folder


def _torch_multiprocessing(module: ModuleType) -> None:
    """Forget how to send tensors by descriptor: pickle them by value."""
    pickler = sys.modules["multiprocessing.reduction"].ForkingPickler
    for kind in [kind for kind in pickler._extra_reducers if kind.__module__.partition(".")[0] == "torch"]:
        del pickler._extra_reducers[kind]
    del module


def _torch_storage(module: ModuleType) -> None:
    def new_shared(cls: Any, size: int, *, device: Any = "cpu") -> Any:
        return cls(size, device=device)

    storage: Any = module.UntypedStorage
    storage._new_shared = classmethod(new_shared)  # where DataLoader's workers put a batch together
    storage.share_memory_ = _refuse("sharing a tensor's memory", "a Queue, which sends tensors by value")


MENDED: dict[str, Callable[[ModuleType], None]] = {
    "multiprocessing.managers": _managers,
    "multiprocessing.forkserver": _forkserver,
    "multiprocessing.heap": _heap,
    "torch.multiprocessing": _torch_multiprocessing,
    "torch.storage": _torch_storage,
}


class Mender(importlib.abc.MetaPathFinder):
    """Mends a module right after it was loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that is to be mended as Python does, and mend it when it is executed."""
        if (mend := MENDED.get(fullname)) is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            mend(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def begin() -> None:
    """Mend what is loaded now, and what will be."""
    _multiprocessing.SemLock = SemLock
    sys.meta_path.insert(0, Mender())
    os.environ.setdefault("LOGNAME", "stoker")  # a user without a name: getpass would find none
    if sys.stderr is not None:
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # by which a supervisor asks for the stacks of a stall
    if folder := os.environ.get("TMPDIR"):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(folder, "torchinductor"))  # noqa: PTH118


begin()
