# mypy: disable-error-code="func-returns-value"
"""Attacks on a job's own limits: rights that it might gain, and what it might have inherited."""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.sandbox.attack import attack

CANARY = re.compile(rb"stk_canary_[0-9a-f]{32}")  # what a secret of the worker looks like


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
