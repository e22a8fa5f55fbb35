"""Landlock: an allow-list of files, and no signals or sockets out of the job, asked of the kernel without privilege.

See landlock(7). Each newer version of the kernel's interface (ABI) can refuse more; all that this kernel has is used:
2 moves between folders, 3 truncation, 4 TCP, 5 ioctl on devices, 6 signals and abstract sockets.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable
from stat import S_ISDIR

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}

READ = READ_FILE | READ_DIR | EXECUTE
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what can be allowed of a single file
_TCP = 3  # bind, connect
_SCOPES = 3  # abstract unix sockets, signals


def abi() -> int:
    """The kernel's version of Landlock; 0: it has none, or it was switched off at boot."""
    return max(0, int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def restrict(version: int, rules: Iterable[tuple[str, int]], *, tcp: bool) -> None:
    """Let this thread and all its children to come do nothing with files but what the rules allow.

    Each rule is a file or a folder, with all below it, and what is allowed there; one that is absent is passed over.
    Signals reach only those that are restricted with it (version 6 on). ``no_new_privs`` must be set.

    Raises OSError.
    """
    ruleset = make(version, rules, tcp=tcp)
    try:
        _call("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def make(version: int, rules: Iterable[tuple[str, int]], *, tcp: bool) -> int:
    """Return a descriptor of these rules, which nobody obeys yet.

    Raises OSError.
    """
    handled = (1 << 13) - 1
    for since, access in _SINCE.items():
        handled |= access if version >= since else 0
    fields = (handled, 0 if tcp or version < 4 else _TCP, _SCOPES if version >= 6 else 0)
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = _call("landlock_create_ruleset", _CREATE_RULESET, struct.pack("QQQ", *fields)[:size], size, 0)
    try:
        for path, access in rules:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow(ruleset, path, access & handled)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        if access:
            rule = struct.pack("=Qi", access, descriptor)
            _call("landlock_add_rule", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(name: str, number: int, *arguments: int | bytes) -> int:
    typed = [ctypes.c_char_p(one) if isinstance(one, bytes) else ctypes.c_long(one) for one in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(number), *typed))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
