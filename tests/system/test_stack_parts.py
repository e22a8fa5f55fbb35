"""The parts of the stack that need no service: the home, ports, the watching of services, the demo's choice of data."""

import functools
import hashlib
import http.server
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.errors import SettingInvalid, StackError
from stoker.settings import Settings
from stoker.stack import demo_data
from stoker.stack.home import Home
from stoker.stack.ports import choose_port, fetch, url_of
from stoker.stack.process import LOG_LIMIT_BYTES, Child, trim
from stoker.stack.services import environ_of
from stoker.stack.stack import Watched, tend
from tests.support.waiting import wait_for
from tests.support.workers import is_gone


def test_one_process_holds_a_home(home: Path) -> None:
    with Home(home), pytest.raises(StackError, match=rf"another process \(pid {os.getpid()}\) already runs a stack in"):
        Home(home)
    Home(home).close()


def test_a_killed_holder_lets_go(home: Path) -> None:
    program = "import sys; from pathlib import Path; from stoker.stack.home import Home; "
    program += "held = Home(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StackError, match=f"pid {holder.pid}"):
            Home(home)
        holder.kill()
    Home(home).close()


def test_data_of_a_newer_stoker_is_refused(home: Path) -> None:
    (home / "format").write_text("99\n")
    with pytest.raises(SettingInvalid, match="has format 99, this Stoker knows 1; upgrade Stoker"):
        Home(home)
    (home / "format").write_text("1\n")
    Home(home).close()


def test_a_home_that_cannot_be_made_is_named(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(SettingInvalid, match=r"STOKER_HOME: .*/file/home cannot be written: Not a directory"):
        Home(home / "file" / "home")


def test_secrets_stay_the_same_and_private(home: Path) -> None:
    with Home(home) as held:
        first = held.secret("password")
        assert held.secret("password") == first
        assert len(first) >= 32
    assert stat.S_IMODE((home / "password").stat().st_mode) == 0o600


def test_socket_folders_of_a_killed_stack_are_removed_and_nothing_else(home: Path) -> None:
    left, foreign = home / "stoker-abc", home / "precious"
    left.mkdir()
    foreign.mkdir()
    with Home(home) as held:
        held.remember_folders(left, foreign)
    Home(home).close()
    assert not left.exists()
    assert foreign.exists()


def test_a_configured_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(
            SettingInvalid, match=f"STOKER_API_PORT: cannot listen on port {taken} of 127.0.0.1: it is in use"
        ):
            choose_port("STOKER_API_PORT", "127.0.0.1", taken)
        assert choose_port("STOKER_API_PORT", "127.0.0.1", 0, last=taken) != taken
    assert choose_port("STOKER_API_PORT", "127.0.0.1", 0, last=taken) == taken
    with pytest.raises(SettingInvalid, match="99999"):
        choose_port("STOKER_API_PORT", "127.0.0.1", 99999)


def test_addresses_can_be_reached_from_here() -> None:
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert url_of("::", 80) == "http://[::1]:80"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert fetch("127.0.0.1", port, "/") == (0, b"")


def test_services_get_the_settings_but_no_token_of_a_client() -> None:
    environ = environ_of(
        Settings(token="stk_x", url="http://a", database_url="postgresql+psycopg://u:p@h/d", worker_cpus=2)
    )
    assert environ["STOKER_DATABASE_URL"] == "postgresql+psycopg://u:p@h/d"
    assert environ["STOKER_WORKER_CPUS"] == "2"
    assert not {"STOKER_TOKEN", "STOKER_URL", "STOKER_BROKER_URL"} & environ.keys()


class Sleeper:
    """A service that does nothing, or ends at once."""

    def __init__(self, log: Path, *command: str) -> None:
        self.child = Child("Sleeper", command, log=log, environ={})

    def launch(self) -> None:
        self.child.start()

    def ready(self) -> bool:
        return self.child.alive

    def stop(self, grace_seconds: float, hurry: Callable[[], bool]) -> None:
        self.child.stop(grace_seconds, hurry)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    service = Sleeper(tmp_path / "log", "/bin/sleep", "1000")
    service.launch()
    yield service
    service.child.kill()


def test_a_service_that_died_is_started_again_and_one_line_is_said(sleeper: Sleeper) -> None:
    watched, said, first = Watched(sleeper, 1), list[str](), sleeper.child.pid
    tend(watched, said.append)
    assert said == []
    sleeper.child.kill()

    def alive() -> bool:
        tend(watched, said.append)
        return sleeper.child.alive

    wait_for(alive, 30, "the service to be started again")
    assert sleeper.child.pid != first
    assert len(said) == 1
    assert re.match(r"Sleeper +has ended \(SIGKILL\); starting it again in 0.25 s, see /", said[0])


def test_a_service_that_keeps_dying_is_started_ever_more_rarely(tmp_path: Path) -> None:
    service = Sleeper(tmp_path / "log", "/bin/false")
    service.launch()
    watched, said = Watched(service, 1), list[str]()

    def died_three_times() -> bool:
        tend(watched, said.append)
        return len(said) == 3

    wait_for(died_three_times, 30, "three deaths")
    assert [re.findall(r"\(exit code 1\); starting it again in (\S+) s", line)[0] for line in said] == [
        "0.25",
        "0.5",
        "1",
    ]


def test_stop_asks_before_it_kills_and_takes_the_group_along(tmp_path: Path) -> None:
    program = "trap 'exit 7' TERM; sleep 1000 & echo $!; wait"
    service = Sleeper(tmp_path / "log", "/bin/sh", "-c", program)
    service.launch()
    wait_for(lambda: (tmp_path / "log").read_text().endswith("\n"), 30, "the child to speak")
    grandchild = int((tmp_path / "log").read_text())
    service.child.stop(5)
    assert service.child.fate() == "exit code 7"
    wait_for(lambda: is_gone(grandchild), 30, "the grandchild to end")


def test_a_second_request_to_stop_does_not_wait(tmp_path: Path) -> None:
    service = Sleeper(tmp_path / "log", "/bin/sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.05; done")
    service.launch()
    wait_for(lambda: (tmp_path / "log").read_text() == "on\n", 30, "the child to be deaf")
    began = time.monotonic()
    service.child.stop(60, hurry=lambda: True)
    assert service.child.fate() == "SIGKILL"
    assert time.monotonic() - began < 30


def test_an_early_end_shows_the_last_words(tmp_path: Path) -> None:
    service = Sleeper(tmp_path / "log", "/bin/sh", "-c", "echo the disk is full; exit 3")
    service.launch()
    with pytest.raises(StackError, match=r"Sleeper ended at once \(exit code 3\); the end of .*\n  the disk is full"):
        service.child.wait_ready(lambda: False, 10)


def test_a_long_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"a" * 1000 + b"b" * LOG_LIMIT_BYTES)
    trim(log)
    assert log.read_bytes() == b"b" * LOG_LIMIT_BYTES


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that serves the file ``data``."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "data").write_bytes(b"cifar")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def nothing(done: int, size: int) -> None:
    pass


def test_a_download_is_whole_and_unchanged_or_not_there(web: str, tmp_path: Path) -> None:
    target, md5 = tmp_path / "cache" / "file", "e5d71c6e4d2a9ce1e1ec2b8b2d2c5e0f"
    with pytest.raises(ValueError, match="MD5"):
        demo_data.download(f"{web}/data", md5, target, nothing)
    assert list(target.parent.iterdir()) == []
    good = hashlib.md5(b"cifar", usedforsecurity=False).hexdigest()
    seen = list[tuple[int, int]]()
    demo_data.download(f"{web}/data", good, target, lambda done, size: seen.append((done, size)))
    assert target.read_bytes() == b"cifar"
    assert seen[-1] == (5, 5)


def test_the_demo_takes_your_data_then_cifar_then_digits(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "My Images.tar.gz"
    own.write_text("")
    chosen = demo_data.choose(Settings(home=tmp_path, demo_data=own), nothing)
    assert (chosen.name, chosen.upload) == ("demo-my-images", own)
    with pytest.raises(SettingInvalid, match="STOKER_DEMO_DATA: there is no"):
        demo_data.choose(Settings(home=tmp_path, demo_data=tmp_path / "absent"), nothing)
    monkeypatch.setattr(demo_data, "CIFAR10_URL", f"{web}/absent")
    chosen = demo_data.choose(Settings(home=tmp_path), nothing)
    assert (chosen.name, chosen.upload) == ("digits", None)
    assert "404" in chosen.why
    monkeypatch.setattr(demo_data, "CIFAR10_URL", f"{web}/data")
    monkeypatch.setattr(demo_data, "CIFAR10_MD5", hashlib.md5(b"cifar", usedforsecurity=False).hexdigest())
    assert demo_data.choose(Settings(home=tmp_path), nothing).why.startswith("CIFAR-10, downloaded")
    monkeypatch.setattr(demo_data, "CIFAR10_URL", f"{web}/absent")
    assert demo_data.choose(Settings(home=tmp_path), nothing).why.startswith("CIFAR-10 from the cache")
