"""Become a command that ends when its parent does: run by path, as ``python -I -S launcher.py …``.

Arguments: the signal to receive when the parent dies, the parent's pid, the user and group to become (-1: stay),
then the command. An interpreter of its own rather than ``preexec_fn``, which may deadlock once its parent has threads.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def launch(death_signal: int, parent: int, uid: int, gid: int, command: list[str]) -> None:
    """Change the user, tie this process to its parent, execute the command.

    The kernel clears the death signal at every change of credentials, so it is set after that; a parent that died
    before is seen by ``getppid``. The signal is tied to the parent's *thread*: start children from a thread that lives.
    """
    os.umask(0o077)
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
    os.execv(command[0], command)  # noqa: S606 - the arguments come from Child, a list


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
