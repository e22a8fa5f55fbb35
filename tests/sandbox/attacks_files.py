# mypy: disable-error-code="func-returns-value"
"""Attacks on files: secrets, those of other jobs, of the cache, of Stoker and of the machine."""

import os
import stat
from pathlib import Path
from typing import Any

from tests.sandbox.attack import attack


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
