"""Nothing that a job leaves in its folder stays on the disk, and nothing else goes with it."""

import os
from collections.abc import Callable
from pathlib import Path

from stoker.training import cache
from stoker.training.removal import remove_tree

DEEPER_THAN_A_RECURSION = 1500
ORDINARY_USER = 1000


def leave(folder: Path) -> None:
    """What a hostile job may leave behind."""
    folder.mkdir()
    (folder / "file").write_bytes(bytes(10_000))
    (folder / "outside").symlink_to(folder.parent / "kept", target_is_directory=True)
    start = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    for _ in range(DEEPER_THAN_A_RECURSION):
        Path("a folder").mkdir()
        os.chdir("a folder")
    os.chdir(start)
    os.close(start)
    for number, mode in enumerate((0o000, 0o300, 0o500)):
        hidden = folder / "inner" / f"hidden-{number}"
        (hidden / "deep").mkdir(parents=True)
        (hidden / "deep" / "file").touch()
        (hidden / "deep").chmod(mode)
        hidden.chmod(mode)


def as_an_ordinary_user(folder: Path, work: Callable[[], int]) -> int:
    """What work in a folder returns, in a child without the right of root to look everywhere."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)  # above which such a user may see nothing
            if os.geteuid() == 0:
                os.setresuid(ORDINARY_USER, ORDINARY_USER, ORDINARY_USER)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_whatever_a_job_made_of_its_folder_is_removed_and_what_a_link_leads_to_is_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "kept").mkdir(parents=True)
    (home / "kept" / "file").touch(mode=0o640)
    if os.geteuid() == 0:
        for place in (home, home / "kept", home / "kept" / "file"):
            os.chown(place, ORDINARY_USER, ORDINARY_USER)
    before = (home / "kept").stat().st_mode

    def work() -> int:
        leave(Path("scratch"))
        remove_tree(Path("scratch"))
        return int(Path("scratch").exists())

    assert as_an_ordinary_user(home, work) == 0
    assert sorted(home.rglob("*")) == [home / "kept", home / "kept" / "file"]
    assert (home / "kept").stat().st_mode == before


def test_a_folder_that_hides_what_it_holds_counts_as_more_than_any_limit(tmp_path: Path) -> None:
    leave(tmp_path / "environment")
    assert cache.measured(tmp_path / "environment") == cache.HIDDEN_BYTES
    remove_tree(tmp_path / "environment")
    assert cache.measured(tmp_path) == 0
