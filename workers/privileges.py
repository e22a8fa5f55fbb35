"""Privileges that a job's process gives up for good: root's capabilities, and any way to gain new ones by an exec.

A job of a worker that runs as root becomes a user of its own: the kernel counts nobody's processes against root, and
what it keeps apart between users (signals, limits, priorities) it then keeps apart between jobs. Such a job may still
open what root may, because the interpreter may lie below /root; what it may open at all is Landlock's affair.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _RAISE = 4, 8, 2
_DAC_OVERRIDE = 1  # CAP_DAC_OVERRIDE: open files whatever their mode
_CAPABILITIES = 64
_TO_BECOME = {0: "CAP_CHOWN", 6: "CAP_SETGID", 7: "CAP_SETUID"}
_FIRST_USER = 0x7A000000  # nobody is called so anywhere
_VERSION_3 = 0x20080522  # of struct __user_cap_header_struct: two sets of 32 capabilities


def missing() -> tuple[str, ...]:
    """The capabilities for want of which root's jobs stay root; none for an ordinary user, whose jobs stay its own."""
    if os.geteuid() != 0:
        return ()
    effective = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    return tuple(name for bit, name in _TO_BECOME.items() if not effective >> bit & 1)


def give_up(folders: Sequence[str]) -> None:
    """Keep no capability, not even as root, and never gain one; as root become the owner of these folders.

    Raises OSError.
    """
    for capability in range(_CAPABILITIES):  # of files that an exec would add; only root may drop them, and has to
        if capability != _DAC_OVERRIDE and _LIBC.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # the kernel has no more, or this process has none to drop
    _LIBC.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    kept = 1 << _DAC_OVERRIDE if os.geteuid() == 0 and _become(_FIRST_USER + os.getpid(), folders) else 0
    header, sets = struct.pack("Ii", _VERSION_3, 0), struct.pack("IIIIII", kept, kept, kept, 0, 0, 0)
    if _LIBC.capset(ctypes.c_char_p(header), ctypes.c_char_p(sets)) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")
    if kept:
        _LIBC.prctl(_PR_CAP_AMBIENT, _RAISE, ctypes.c_ulong(_DAC_OVERRIDE), 0, 0)  # through an exec too
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(errno.EINVAL, "no_new_privs: the kernel does not know it")


def _become(user: int, folders: Sequence[str]) -> bool:
    """Become a user that nobody else is; False where root has lost the right to, or the container has no such user."""
    _LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    try:
        for folder in folders:
            for path in (folder, *(entry.path for entry in os.scandir(folder))):
                os.chown(path, user, user, follow_symlinks=False)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:
        return False
    _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or its own /proc/self would not be its own
    return True
