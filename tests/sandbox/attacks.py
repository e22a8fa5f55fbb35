# mypy: disable-error-code="func-returns-value"
"""What a job could try against its worker, its neighbours and the services: each attack raises when it is refused.

The targets: pids of ``worker`` and ``neighbour``; paths of a ``secret``, of the file of an ``other`` job, of a
``lock`` of the cache and of Stoker's ``code``; sockets: ``postgres``, ``redis``, ``socket``, ``datagrams`` by path,
``abstract`` by name, ``port`` by TCP.

``python attacks.py TARGETS.json`` prints the names of those that succeeded; it needs nothing but Python.
"""

import ctypes
import encodings.idna  # noqa: F401 - socket loads it late, when its file cannot be read any more
import errno
import json
import os
import platform
import re
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

CANARY = re.compile(rb"stk_canary_[0-9a-f]{32}")  # what a secret of the worker looks like
X86 = platform.machine() == "x86_64"
_LIBC = ctypes.CDLL(None, use_errno=True)
Attack = Callable[[dict[str, Any]], object]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    """List an attack; it is named after its function."""
    ATTACKS[function.__name__] = function
    return function


def call(x86: int, arm: int, *arguments: object) -> int:
    """A system call by number; raises OSError."""
    typed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(_LIBC.syscall(ctypes.c_long(x86 if X86 else arm), *typed))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


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
    if _LIBC.prctl(36, 0, 0, 0, 0) != 0:  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return _LIBC.prctl(36, 1, 0, 0, 0)


@attack
def have_a_child_beside_the_job(targets: dict[str, Any]) -> object:
    child = call(56, 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0)  # CLONE_PARENT
    if child == 0:
        os._exit(0)
    return child


@attack
def read_a_secret(targets: dict[str, Any]) -> object:
    return Path(targets["secret"]).read_text()


@attack
def read_a_secret_through_a_link(targets: dict[str, Any]) -> object:
    Path("link").unlink(missing_ok=True)
    Path("link").symlink_to(targets["secret"])
    return Path("link").read_text()


@attack
def read_a_secret_through_a_hard_link(targets: dict[str, Any]) -> object:
    os.link(targets["secret"], "hard")
    return Path("hard").read_text()


@attack
def read_a_secret_through_its_own_root(targets: dict[str, Any]) -> object:
    return Path(f"/proc/self/root{targets['secret']}").read_text()


@attack
def overwrite_the_file_of_another_job(targets: dict[str, Any]) -> object:
    return Path(targets["other"]).open("w")


@attack
def cut_the_file_of_another_job(targets: dict[str, Any]) -> object:
    return os.truncate(targets["other"], 0)


@attack
def remove_the_file_of_another_job(targets: dict[str, Any]) -> object:
    return Path(targets["other"]).unlink()


@attack
def move_the_file_of_another_job(targets: dict[str, Any]) -> object:
    return Path(targets["other"]).rename("mine")


@attack
def open_the_file_of_another_job_to_all(targets: dict[str, Any]) -> object:
    before = os.stat(targets["other"]).st_mode
    os.chmod(targets["other"], 0o777)
    if os.stat(targets["other"]).st_mode == before:
        raise PermissionError("chmod did nothing")
    return before


@attack
def give_the_file_of_another_job_away(targets: dict[str, Any]) -> object:
    before = os.stat(targets["other"]).st_uid
    os.chown(targets["other"], 12345, 12345)
    if os.stat(targets["other"]).st_uid == before:
        raise PermissionError("chown did nothing")
    return before


@attack
def mark_the_file_of_another_job(targets: dict[str, Any]) -> object:
    return os.setxattr(targets["other"], "user.mark", b"x")


@attack
def list_the_scratch_folders(targets: dict[str, Any]) -> object:
    return os.listdir(Path(targets["other"]).parent.parent)


@attack
def hold_the_lock_of_the_cache(targets: dict[str, Any]) -> object:
    return os.open(targets["lock"], os.O_RDONLY)


@attack
def make_a_file_in_the_cache(targets: dict[str, Any]) -> object:
    return Path(targets["lock"]).with_name("planted").touch()


@attack
def change_the_code_of_stoker(targets: dict[str, Any]) -> object:
    return Path(targets["code"]).open("a")


@attack
def make_a_file_in_tmp(targets: dict[str, Any]) -> object:
    return Path("/tmp/planted").open("w")


@attack
def make_a_file_in_shared_memory(targets: dict[str, Any]) -> object:
    return Path("/dev/shm/planted").open("w")


@attack
def make_a_device(targets: dict[str, Any]) -> object:
    return os.mknod("device", 0o600 | stat.S_IFBLK, os.makedev(254, 0))


@attack
def change_a_setting_of_the_kernel(targets: dict[str, Any]) -> object:
    return Path("/proc/sys/kernel/core_pattern").open("w")


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


@attack
def reach_the_broker(targets: dict[str, Any]) -> object:
    return socket.create_connection(("127.0.0.1", targets["port"]), 1)


@attack
def make_a_datagram_socket(targets: dict[str, Any]) -> object:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@attack
def ask_the_kernel_for_its_addresses(targets: dict[str, Any]) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


def _connect(address: str) -> object:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


@attack
def reach_postgresql_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["postgres"])


@attack
def reach_redis_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["redis"])


@attack
def reach_any_socket_by_its_path(targets: dict[str, Any]) -> object:
    return _connect(targets["socket"])


@attack
def reach_an_abstract_socket(targets: dict[str, Any]) -> object:
    return _connect("\0" + targets["abstract"])


@attack
def send_a_datagram_to_a_path(targets: dict[str, Any]) -> object:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # connected, and sends elsewhere all the same
    return one.sendto(b"x", targets["datagrams"])


@attack
def bind_a_pair_to_a_path(targets: dict[str, Any]) -> object:
    one, _ = socket.socketpair()
    return one.bind("bound")


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


@attack
def become_somebody_else(targets: dict[str, Any]) -> object:
    return os.setuid(0 if os.getuid() else 4711)


@attack
def gain_capabilities_by_an_exec(targets: dict[str, Any]) -> object:
    code = "import os\ntry: os.setgroups([4711])\nexcept OSError: os._exit(0)\nos._exit(7)"  # CAP_SETGID
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], os.environ)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 7:
        raise PermissionError("there are none")
    return pid


@attack
def write_a_file_that_is_too_long(targets: dict[str, Any]) -> object:
    with Path("sparse").open("wb") as file:
        return file.truncate(100 * 2**30)


@attack
def open_too_many_files(targets: dict[str, Any]) -> object:
    first = os.open("/dev/null", os.O_RDONLY)
    try:
        for _ in range(100_000):
            os.dup(first)
    finally:
        os.closerange(first, 200_000)
    return first


@attack
def find_a_secret_in_its_own_environment(targets: dict[str, Any]) -> object:
    return _secret_in([Path("/proc/self/environ").read_bytes(), json.dumps(dict(os.environ)).encode()])


@attack
def find_a_secret_in_its_own_memory(targets: dict[str, Any]) -> object:
    return _secret_in(_own_memory())


def _own_memory() -> Iterator[bytes]:
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for line in Path("/proc/self/maps").read_text().splitlines():
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1].startswith("rw") and end - begin < 2**28:
                memory.seek(begin)
                yield memory.read(end - begin)


def _secret_in(places: Iterable[bytes]) -> object:
    for place in places:
        if match := CANARY.search(place):
            return match[0]
    raise PermissionError("there is none")


@attack
def find_a_descriptor_that_is_not_its_own(targets: dict[str, Any]) -> object:
    found = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if int(number) > 3]
    foreign = [lead for lead in found if not lead.startswith("/proc/")]
    if not foreign:
        raise PermissionError("there is none")
    return foreign


def succeeded(targets: dict[str, Any], names: Iterable[str] = ()) -> list[str]:
    """Try these attacks, or all; the names of those that were not refused."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = []
    for name in names or ATTACKS:
        try:
            ATTACKS[name](targets)
        except (OSError, ValueError):
            continue
        found.append(name)
    return found


if __name__ == "__main__":
    json.dump(succeeded(json.loads(Path(sys.argv[1]).read_text())), sys.stdout)
