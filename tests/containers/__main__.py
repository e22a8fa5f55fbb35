"""``python -m tests.containers``: run the team's installation in real containers, and check what was promised of it.

It brings its own Docker engine, made of Debian's packages, and its own base images, so that it needs no registry; the
product's Dockerfile and docker-compose.yml are used as they are. Afterwards engine and firewall are as found.

--only NAME    these checks only, by the name of their function; may be repeated
--keep         before engine and containers are taken down, say how to reach them, and wait for Ctrl-C
"""

import argparse
import fcntl
import shutil
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.containers import (
    checks_backup,
    checks_faults,
    checks_hardening,
    checks_jobs,
    checks_refusals,
    images,
    machine,
    torch_wheels,
)
from tests.containers.engine import Engine
from tests.containers.installation import Installation
from tests.containers.tally import Tally, say
from tests.containers.torch_wheels import Torch

HOME = Path("/tmp/stoker-engine")
LOCK = Path("/tmp/stoker-engine.lock")
MODULES = (checks_refusals, checks_hardening, checks_jobs, checks_faults)
NAMES = [check.__name__ for module in MODULES for check in module.CHECKS] + [checks_backup.restored.__name__]


def main() -> int:
    """Run; 0 if everything is as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", default=[])
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # whatever ends us, everything is cleared up
    wanted = given.only or NAMES
    tally = Tally()
    try:
        machine.install_tools()
        machine.require()
    except machine.Hindrance as hindrance:
        for name in wanted:
            tally.skip(name, str(hindrance))
        return tally.tell()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one engine at a time
        _with_engine(tally, wanted, given.keep)
    return tally.tell()


def _with_engine(tally: Tally, wanted: list[str], keep: bool) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o711)
    engine = Engine(HOME)
    try:
        torch = _prepare(tally, engine)
        stack = Installation(engine, HOME / "tree", "stoker-containers", (18471, 18472), torch)
        if _up(tally, stack):
            _run(tally, stack, wanted, torch)
        if keep:
            _wait(engine)
        tally.note("taking everything down")
        stack.down()
    finally:
        engine.stop()
        tally.check("engine and firewall are as found", partial(_nothing_left, engine))
        shutil.rmtree(HOME, ignore_errors=True)


def _wait(engine: Engine) -> None:
    say("kept: " + " ".join(f"{name}={engine.environ[name]}" for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")))
    with suppress(KeyboardInterrupt):
        signal.pause()


def _prepare(tally: Tally, engine: Engine) -> Torch:
    """The engine, and in it the images that a registry has elsewhere."""
    shelf = HOME / "shelf"
    shelf.mkdir()
    tally.note("engine, base image and torch")
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(engine.fetch)
        tree = pool.submit(images.bootstrap, HOME)
        torch = torch_wheels.choose(shelf)
        fetched.result()
        engine.start()
        images.load(engine, tree.result(), shelf)
    tally.note(f"images; {torch.told}")
    images.build_standins(engine)
    return torch


def _up(tally: Tally, stack: Installation) -> bool:
    """``make compose-up``, whose last lines are the addresses and the first token."""

    def come_up() -> None:
        said = stack.script("up.sh", seconds=900, variables={"WAIT_SECONDS": "180"}).stdout
        assert said.splitlines()[-1].split() == ["Token", stack.token], "it did not print the token"

    return tally.check("compose-up builds the images and starts everything", come_up)


def _run(tally: Tally, stack: Installation, wanted: list[str], torch: Torch) -> None:
    for module in MODULES:
        for check in module.CHECKS:
            if check.__name__ in wanted:
                tally.check(_name(check), partial(check, stack))
    if checks_backup.restored.__name__ in wanted:
        empty = Installation(stack.engine, HOME / "restored", "stoker-restored", (18473, 18474), torch)
        tally.check(_name(checks_backup.restored), partial(checks_backup.restored, stack, empty))
        empty.down()


def _name(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ") + ": " + (check.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _nothing_left(engine: Engine) -> None:
    assert engine.as_found(), "see ip link, iptables-save, /proc/mounts"


if __name__ == "__main__":
    sys.exit(main())
