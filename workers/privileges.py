"""Privileges that a job's process gives up for good: root's capabilities, and any way to gain new ones by an exec."""

import ctypes
import errno
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 24, 38, 47, 4
_CAPABILITIES = 64
_VERSION_3 = 0x20080522  # of struct __user_cap_header_struct: two sets of 32 capabilities


def give_up() -> None:
    """Keep no capability, not even as root, and never gain one.

    Raises OSError.
    """
    for capability in range(_CAPABILITIES):  # of files that an exec would add; only root may drop them, and has to
        if _LIBC.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # the kernel has no more, or this process has none to drop
    _LIBC.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header, nothing = struct.pack("Ii", _VERSION_3, 0), bytes(24)
    if _LIBC.capset(ctypes.c_char_p(header), ctypes.c_char_p(nothing)) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(errno.EINVAL, "no_new_privs: the kernel does not know it")
