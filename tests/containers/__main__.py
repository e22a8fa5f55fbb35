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
from collections.abc import Callable, Sequence
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
    checks_remote,
    images,
    machine,
    torch_wheels,
)
from tests.containers.engine import Engine
from tests.containers.installation import HOST, PLAIN, REMOTE, TLS, Installation
from tests.containers.tally import Tally, say

HOME = Path("/tmp/stoker-engine")
LOCK = Path("/tmp/stoker-engine.lock")
ALONE = (checks_refusals, checks_hardening, checks_jobs)  # need one installation
NAMES = [check.__name__ for module in (*ALONE, checks_remote, checks_backup, checks_faults) for check in module.CHECKS]


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
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one engine at a time
            engine = Engine(HOME)
            engine.stop()  # what a run has left that was killed
            machine.require_kernel()
            _with_engine(tally, engine, wanted, given.keep)
    except machine.Hindrance as hindrance:
        for name in wanted:
            tally.skip(name, str(hindrance))
    return tally.tell()


def _with_engine(tally: Tally, engine: Engine, wanted: list[str], keep: bool) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o711)
    try:
        stacks: list[Installation] = []
        prepared = tally.check("engine and images", lambda: stacks.extend(_prepare(tally, engine)))
        if prepared and _up(tally, stacks[0]):
            _run(tally, wanted, *stacks)
        if keep:
            _wait(engine)
        if prepared:
            tally.check("the installation is taken down", stacks[0].down)
    finally:
        engine.stop()
        tally.check("engine and firewall are as found", partial(_nothing_left, engine))
        shutil.rmtree(HOME, ignore_errors=True)


def _wait(engine: Engine) -> None:
    say("kept: " + " ".join(f"{name}={engine.environ[name]}" for name in ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")))
    with suppress(KeyboardInterrupt):
        signal.pause()


def _prepare(tally: Tally, engine: Engine) -> list[Installation]:
    """The engine, and in it all images; returns installations: the first, one to be restored, one of another host."""
    shelf = HOME / "shelf"
    shelf.mkdir()
    tally.note("engine, base image and torch")
    pool = ThreadPoolExecutor()
    try:
        fetched = pool.submit(engine.fetch)
        tree = pool.submit(images.bootstrap, HOME)
        torch = torch_wheels.choose(shelf)
        fetched.result()
        engine.start()
        images.load(engine, tree.result(), shelf)
        tally.note(f"images; {torch.told}")
        stacks = [
            Installation(engine, HOME / "first", TLS, 18470, torch),
            Installation(engine, HOME / "restored", PLAIN, 18480, torch),
            Installation(engine, HOME / "remote", REMOTE, 18490, torch),
        ]
        standins = pool.submit(images.build_standins, engine)
        stacks[0].compose("build", "--quiet", seconds=900)
        standins.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # `engine.stop` ends what they wait for
    return stacks


def _up(tally: Tally, stack: Installation) -> bool:
    """``make compose-up`` behind ``docker/certificates.sh``; its last lines are the addresses and the first token."""

    def come_up() -> None:
        stack.script("certificates.sh", HOST)
        said = stack.script("up.sh", seconds=900, variables={"WAIT_SECONDS": "180"}).stdout
        assert said.splitlines()[-1].split() == ["Token", stack.token], "it did not print the token"
        assert f"https://{HOST}:{stack.tls_port}" in said, "it did not print the gateway's address"

    return tally.check("compose-up starts everything", come_up)


def _run(tally: Tally, wanted: list[str], stack: Installation, restored: Installation, remote: Installation) -> None:
    def check(checks: Sequence[Callable[..., None]], *installations: Installation) -> None:
        for one in checks:
            if one.__name__ in wanted:
                tally.check(_name(one), partial(one, *installations))

    for module in ALONE:
        check(module.CHECKS, stack)
    check(checks_remote.CHECKS, stack, remote)
    remote.down()
    check(checks_backup.TAKEN, stack, restored)
    pool = ThreadPoolExecutor()
    try:  # most of a fault is waiting
        filled = pool.submit(check, checks_backup.FILLED, stack, restored)
        check(checks_faults.CHECKS, stack)
        filled.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _name(check: Callable[..., None]) -> str:
    return check.__name__.replace("_", " ") + ": " + (check.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _nothing_left(engine: Engine) -> None:
    assert not engine.left(), "; ".join(engine.left())


if __name__ == "__main__":
    sys.exit(main())
