"""An attack, and the list of all: each raises when it is refused. Needs nothing but Python."""

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
Attack = Callable[[dict[str, Any]], object]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """List an attack; it is named after its function."""
    ATTACKS[function.__name__] = function
    return function


def call(x86: int, arm: int, *arguments: object) -> int:
    """A system call by number; raises OSError."""
    typed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(LIBC.syscall(ctypes.c_long(x86 if X86 else arm), *typed))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
