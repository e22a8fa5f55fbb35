# mypy: disable-error-code="func-returns-value"
"""Attacks by what the kernel offers to processes without privilege."""

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

from tests.sandbox.attack import X86, attack, call


@attack
def enter_a_user_namespace(targets: dict[str, Any]) -> object:
    return call(272, 97, 0x10000000)


@attack
def be_born_in_a_user_namespace(targets: dict[str, Any]) -> object:
    pid = call(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)


@attack
def enter_the_namespace_of_the_worker(targets: dict[str, Any]) -> object:
    return call(308, 268, os.pidfd_open(targets["worker"]), 0x20000)


@attack
def mount_a_file_system(targets: dict[str, Any]) -> object:
    return call(165, 40, b"none", os.fsencode(Path.cwd()), b"tmpfs", 0, 0)


@attack
def change_the_root(targets: dict[str, Any]) -> object:
    return os.chroot(".")


@attack
def use_io_uring(targets: dict[str, Any]) -> object:
    return call(425, 425, 4, ctypes.create_string_buffer(120))


@attack
def load_a_program_into_the_kernel(targets: dict[str, Any]) -> object:
    return call(321, 280, 0, ctypes.create_string_buffer(48), 48)


@attack
def watch_the_processor(targets: dict[str, Any]) -> object:
    attributes = ctypes.create_string_buffer(b"\0\0\0\0\x78", 120)  # its size; of kind hardware, cycles
    return call(298, 241, attributes, 0, -1, -1, 0)


@attack
def handle_page_faults(targets: dict[str, Any]) -> object:
    return call(323, 282, 1)


@attack
def use_a_keyring(targets: dict[str, Any]) -> object:
    return call(248, 217, b"user", b"a", b"b", 1, -4)


@attack
def open_by_handle(targets: dict[str, Any]) -> object:
    handle = ctypes.create_string_buffer(b"\x80", 136)  # room for 128 bytes
    return call(303, 264, -100, os.fsencode(targets["secret"]), handle, ctypes.byref(ctypes.c_int()), 0)


@attack
def share_memory_of_system_v(targets: dict[str, Any]) -> object:
    return call(29, 194, 0, 4096, 0o1600)


@attack
def make_a_message_queue(targets: dict[str, Any]) -> object:
    return call(240, 180, b"planted", os.O_RDWR | os.O_CREAT, 0o600, 0)


@attack
def call_by_another_number(targets: dict[str, Any]) -> object:
    if not X86:
        raise PermissionError("only x86-64 has two numbers for a call")
    return call(0x40000000 + 39, 0)
