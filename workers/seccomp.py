"""A filter of system calls: sockets, doors into other processes, namespaces, and what only attackers call.

It denies a list and allows the rest: PyTorch, CUDA and compilers call what nobody can enumerate. Landlock keeps files;
this keeps what Landlock does not see. Numbers are those of Linux on x86-64 and on aarch64.
"""

import ctypes
import errno
import functools
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_MODE_FILTER, _SPEC_ALLOW = 1, 4  # without SPEC_ALLOW, kernels before 5.16 slow the whole process down
_X32 = 0x40000000  # the same calls under other numbers, on x86-64
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _AND, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
# CLONE_NEW*, and CLONE_PARENT: a child of the fork server's, beside the job, which neither the watch over the job nor
# the freeze at the end of its lease reaches. Nor would they reach the orphans of a job that no longer adopts them.
_CLONES = 0x7E020000 | 0x8000
_SET_CHILD_SUBREAPER = 36  # of prctl
_KINDS = 0xF  # of a socket's type, without SOCK_CLOEXEC and SOCK_NONBLOCK

# name: (x86-64, aarch64); None: the architecture has no such call
_DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "vhangup": (153, 58), "lookup_dcookie": (212, 18),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "setuid": (105, 146), "setreuid": (113, 145), "setresuid": (117, 147), "setfsuid": (122, 151),
    "setgid": (106, 144), "setregid": (114, 143), "setresgid": (119, 149), "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "sethostname": (170, 161), "setdomainname": (171, 162),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
    # memory and queues that outlive a job and that any process of the same user can open
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
}  # fmt: skip
_ABSENT = {  # callers have another way
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}  # fmt: skip
# Landlock does not see these, and they work on every file of the worker's user, in whatever folder. They succeed and
# do nothing: shutil.copy, tar and linkers call them as a matter of course.
_IGNORED = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
}  # fmt: skip
# Allowed for the calling process and thread alone, given as 0: (call, which argument names the process)
_OF_ONESELF = {
    "prlimit64": (302, 261, 0), "sched_setaffinity": (203, 122, 0), "sched_setscheduler": (144, 119, 0),
    "sched_setparam": (142, 118, 0), "sched_setattr": (314, 274, 0), "setpriority": (141, 140, 1),
    "ioprio_set": (251, 30, 1), "migrate_pages": (256, 238, 0), "move_pages": (279, 239, 0),
}  # fmt: skip
_WHICH_PROCESS = {"setpriority": 0, "ioprio_set": 1}  # PRIO_PROCESS, IOPRIO_WHO_PROCESS; others name a group or a user


@dataclass(frozen=True, slots=True)
class Architecture:
    """What differs between processors."""

    column: int
    audit: int  # AUDIT_ARCH_*
    seccomp: int
    socket: int
    socketpair: int
    clone: int
    kill: int
    truncate: int
    prctl: int


ARCHITECTURES = MappingProxyType(
    {
        "x86_64": Architecture(0, 0xC000003E, 317, 41, 53, 56, 62, 76, 157),
        "aarch64": Architecture(1, 0xC00000B7, 277, 198, 199, 220, 129, 45, 167),
    }
)

Program = list[tuple[int, int, int, int]]  # code, jump if true, jump if false, constant
_STEP = struct.Struct("HBBI")


def architecture() -> Architecture | None:
    """This machine's, if the filter knows it."""
    return ARCHITECTURES.get(os.uname().machine)


@functools.cache
def program(arch: Architecture, *, network: bool, spared: tuple[int, ...] = (), truncate: bool = True) -> bytes:
    """The filter, as the kernel reads it.

    ``spared`` are processes that no signal may reach, where Landlock does not keep signals inside the job; with them,
    signals to groups are refused as well. Without ``truncate`` files cannot be cut by name.
    """
    made: Program = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQUAL, 1, 0, arch.audit), _give(errno.ENOSYS)]
    made += [(_LOAD, 0, 0, _NUMBER)]
    if arch.column == 0:
        made += [(_JUMP_ABOVE, 0, 1, _X32), _give(errno.ENOSYS)]
    for listed, error in ((_DENIED, errno.EPERM), (_ABSENT, errno.ENOSYS), (_IGNORED, 0)):
        made += [step for one in listed.values() for step in _when(one[arch.column], [_give(error)])]
    for name, one in _OF_ONESELF.items():
        made += _when(one[arch.column], _of_oneself(one[2], _WHICH_PROCESS.get(name)))
    made += _when(arch.clone, [_argument(0), (_JUMP_SET, 0, 1, _CLONES), _give(errno.EPERM), _allow()])
    made += _when(arch.prctl, _adoption())
    made += _when(arch.socketpair, _pairs()) + _when(arch.socket, _sockets(network=network))
    if spared:
        made += _when(arch.kill, _signals(spared))
    if not truncate:
        made += _when(arch.truncate, [_give(errno.EPERM)])
    return b"".join(_STEP.pack(*step) for step in [*made, _allow()])


def install(filter_: bytes, arch: Architecture) -> None:
    """Filter all system calls of this thread and its children to come; ``no_new_privs`` must be set.

    Raises OSError.
    """
    code = ctypes.c_char_p(filter_)
    address = ctypes.cast(code, ctypes.c_void_p).value
    header = struct.pack("HxxxxxxQ", len(filter_) // _STEP.size, address)
    if _LIBC.syscall(ctypes.c_long(arch.seccomp), _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.c_char_p(header)) != 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")


def _give(error: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | error)


def _allow() -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ALLOW)


def _argument(index: int) -> tuple[int, int, int, int]:
    """Load the low half of an argument; all that are looked at here are of 32 bits."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _when(number: int | None, then: Program) -> Program:
    """Steps for one call; they end in a return, whatever happens."""
    return [] if number is None else [(_JUMP_EQUAL, 0, len(then), number), *then]


def _of_oneself(process: int, which: int | None) -> Program:
    made: Program = [_argument(process), (_JUMP_EQUAL, 1, 0, 0), _give(errno.EPERM)]
    if which is not None:
        made += [_argument(0), (_JUMP_EQUAL, 1, 0, which), _give(errno.EPERM)]
    return [*made, _allow()]


def _adoption() -> Program:
    """A process may adopt the orphans below it, and not stop doing so."""
    stop = [(_JUMP_EQUAL, 0, 3, _SET_CHILD_SUBREAPER), _argument(1), (_JUMP_EQUAL, 0, 1, 0), _give(errno.EPERM)]
    return [_argument(0), *stop, _allow()]


def _pairs() -> Program:
    """Connected pairs, but not of datagrams: such a socket can still be sent from to any other by its path."""
    streams = [(_JUMP_EQUAL, 2, 0, int(socket.SOCK_STREAM)), (_JUMP_EQUAL, 1, 0, int(socket.SOCK_SEQPACKET))]
    return [_argument(1), (_AND, 0, 0, _KINDS), *streams, _give(errno.EPERM), _allow()]


def _sockets(*, network: bool) -> Program:
    """None at all; or internet sockets and what resolving a name asks of the kernel, but none with a path."""
    if not network:
        return [_give(errno.EPERM)]
    netlink = [(_JUMP_EQUAL, 0, 3, int(socket.AF_NETLINK)), _argument(2), (_JUMP_EQUAL, 0, 1, 0), _allow()]
    internet = [(_JUMP_EQUAL, 1, 0, int(socket.AF_INET)), (_JUMP_EQUAL, 0, 1, int(socket.AF_INET6)), _allow()]
    return [_argument(0), *internet, *netlink, _give(errno.EPERM)]


def _signals(spared: Sequence[int]) -> Program:
    forbidden: Program = [step for pid in spared for step in ((_JUMP_EQUAL, 0, 1, pid), _give(errno.EPERM))]
    return [_argument(0), (_JUMP_SET, 0, 1, 1 << 31), _give(errno.EPERM), *forbidden, _allow()]
