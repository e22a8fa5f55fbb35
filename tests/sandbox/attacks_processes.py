# mypy: disable-error-code="func-returns-value"
"""Attacks on other processes: what they know, whom they hear, what they may use."""

import ctypes
import errno
import os
import signal
from pathlib import Path
from typing import Any

from tests.sandbox.attack import LIBC, attack, call


@attack
def read_the_environment_of_the_worker(targets: dict[str, Any]) -> object:
    return Path(f"/proc/{targets['worker']}/environ").read_bytes()


@attack
def read_the_environment_of_the_fork_server(targets: dict[str, Any]) -> object:
    return Path(f"/proc/{os.getppid()}/environ").read_bytes()


@attack
def read_the_memory_of_the_worker(targets: dict[str, Any]) -> object:
    return Path(f"/proc/{targets['worker']}/mem").open("rb")


@attack
def list_the_descriptors_of_the_worker(targets: dict[str, Any]) -> object:
    return os.listdir(f"/proc/{targets['worker']}/fd")


@attack
def read_the_command_line_of_a_neighbour(targets: dict[str, Any]) -> object:
    return Path(f"/proc/{targets['neighbour']}/cmdline").read_bytes()


@attack
def list_all_processes(targets: dict[str, Any]) -> object:
    return os.listdir("/proc")


@attack
def let_its_orphans_out_of_the_job(targets: dict[str, Any]) -> object:
    if LIBC.prctl(36, 0, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return LIBC.prctl(36, 1, 0, 0, 0)


@attack
def have_a_child_beside_the_job(targets: dict[str, Any]) -> object:
    child = call(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)  # CLONE_PARENT
    if child == 0:
        os._exit(0)
    return child


@attack
def signal_the_worker(targets: dict[str, Any]) -> object:
    return os.kill(targets["worker"], 0)


@attack
def signal_the_fork_server(targets: dict[str, Any]) -> object:
    return os.kill(os.getppid(), 0)


@attack
def signal_a_neighbour(targets: dict[str, Any]) -> object:
    return os.kill(targets["neighbour"], 0)


@attack
def signal_a_neighbour_by_descriptor(targets: dict[str, Any]) -> object:
    return signal.pidfd_send_signal(os.pidfd_open(targets["neighbour"]), 0)


@attack
def signal_everybody(targets: dict[str, Any]) -> object:
    """Where the kernel lets nobody be signalled it says the same as where all are; the test asks the neighbour."""
    os.kill(-1, signal.SIGURG)
    raise PermissionError("the kernel does not say")


@attack
def trace_the_worker(targets: dict[str, Any]) -> object:
    return call(101, 117, 0x4206, targets["worker"], 0, 0)  # PTRACE_SEIZE


@attack
def read_the_memory_of_a_neighbour(targets: dict[str, Any]) -> object:
    buffer = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    try:
        return call(310, 270, targets["neighbour"], local, 1, local, 1, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # nothing lies at this address there, but one may look
            raise
        return error


@attack
def take_a_descriptor_of_the_worker(targets: dict[str, Any]) -> object:
    return call(438, 438, os.pidfd_open(targets["worker"]), 2, 0)


@attack
def limit_the_worker(targets: dict[str, Any]) -> object:
    return call(302, 261, targets["worker"], 7, 0, ctypes.create_string_buffer(16))


@attack
def slow_the_worker_down(targets: dict[str, Any]) -> object:
    return os.setpriority(os.PRIO_PROCESS, targets["worker"], os.getpriority(os.PRIO_PROCESS, targets["worker"]))


@attack
def bind_the_worker_to_a_processor(targets: dict[str, Any]) -> object:
    return os.sched_setaffinity(targets["worker"], os.sched_getaffinity(targets["worker"]))
