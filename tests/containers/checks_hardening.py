"""What a container may do and what it shows: users, capabilities, secrets, networks, contents of the images."""

import json
import re

import httpx

from tests.containers.installation import OTHERS, SERVICES, WORKER_USER, Installation

COMPILERS = "gcc cc g++ c++ clang make ld as nvcc pytest mypy ruff"


def _first(stack: Installation, service: str) -> str:
    return stack.containers(service)[0]


def non_root(stack: Installation) -> None:
    """Our services run as user 10001, which no host has; the others as users of their images."""
    for service, user in (dict.fromkeys(SERVICES, WORKER_USER) | OTHERS).items():
        assert stack.inside(_first(stack, service), "id", "-u").stdout.strip() == user, service


def powerless(stack: Installation) -> None:
    """No capabilities, no new privileges, a seccomp filter, an init as process 1."""
    for service in (*SERVICES, *OTHERS):
        status = stack.inside(_first(stack, service), "cat", "/proc/1/status").stdout
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(lines["CapEff"], 16) == 0, service
        assert (lines["NoNewPrivs"], lines["Seccomp"], lines["Name"]) == ("1", "2", "docker-init"), service


def read_only(stack: Installation) -> None:
    """The root file system cannot be written; the home and /tmp can."""
    for service in SERVICES:
        container = _first(stack, service)
        touch = stack.inside(container, "touch", "/opt/venv/here", check=False)
        assert "Read-only file system" in touch.stderr, service
        stack.inside(container, "sh", "-c", "touch /tmp/here && rm /tmp/here")
    stack.inside(_first(stack, "worker-cpu"), "sh", "-c", "touch here && rm here")


def limits(stack: Installation) -> None:
    """Memory and processes are limited, and DataLoader's workers have their shared memory."""
    for service in (*SERVICES, *OTHERS):
        limited = stack.inspect(_first(stack, service))["HostConfig"]
        assert limited["Memory"] > 0, service
        assert limited["PidsLimit"] > 0, service
    assert stack.inspect(_first(stack, "worker-cpu"))["HostConfig"]["ShmSize"] == 2**30


def no_secret_shown(stack: Installation) -> None:
    """No password in what the engine tells of containers, images and their history, nor in any log."""
    hidden = {password for text in stack.secrets().values() for password in re.findall(r"[0-9a-f]{48}", text)}
    names = [name for service in (*SERVICES, *OTHERS) for name in stack.containers(service)]
    shown = stack.engine.docker("inspect", *names) + stack.compose("logs", "--no-color")
    for service in SERVICES:
        shown += stack.engine.docker("history", "--no-trunc", f"stoker/{service}")
        shown += stack.engine.docker("inspect", f"stoker/{service}")
    assert len(hidden) == 4
    assert not [secret for secret in hidden if secret in shown]


def lean_images(stack: Installation) -> None:
    """No compiler and no test in any image, no torch in those that need none."""
    for service in SERVICES:
        container = _first(stack, service)
        look = f"for tool in {COMPILERS}; do command -v $tool; done; python -c 'import tests' 2>&1 | tail -n 1"
        assert stack.inside(container, "sh", "-c", look).stdout.split(":")[0] == "ModuleNotFoundError", service
        torch = stack.inside(container, "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
        assert (torch.stdout.strip() == "None") == (service != "worker-cpu"), service


def no_way_out(stack: Installation) -> None:
    """From Redis and PostgreSQL no route leads anywhere; neither is published."""
    for service in ("redis", "postgres"):
        container = _first(stack, service)
        routes = stack.inside(container, "cat", "/proc/net/route").stdout.splitlines()[1:]
        assert routes, service
        assert not [route for route in routes if route.split()[1] == "00000000"], service
        assert not stack.inspect(container)["HostConfig"]["PortBindings"], service


def loopback_only(stack: Installation) -> None:
    """What is published listens on the loopback address."""
    for service in ("api", "flower"):
        for bound in stack.inspect(_first(stack, service))["HostConfig"]["PortBindings"].values():
            assert [one["HostIp"] for one in bound] == ["127.0.0.1"], service


def redis_asks(stack: Installation) -> None:
    """Redis wants a password, and gives nobody the dangerous commands."""
    redis = _first(stack, "redis")
    assert "NOAUTH" in stack.inside(redis, "redis-cli", "ping", check=False).stdout
    ask = "REDISCLI_AUTH=$(cat /run/secrets/redis_password) redis-cli --user stoker "
    for command in ("flushall", "config get dir", "keys '*'", "acl list"):
        assert "NOPERM" in stack.inside(redis, "sh", "-c", ask + command).stdout, command


def api_asks(stack: Installation) -> None:
    """The API and Flower want to know who asks."""
    for address in (f"{stack.ports[0]}/api/v1/jobs", f"{stack.ports[1]}/", f"{stack.ports[1]}/api/tasks"):
        assert httpx.get(f"http://127.0.0.1:{address}", timeout=30).status_code == 401, address


def gpu_request(stack: Installation) -> None:
    """The GPU worker asks the engine for NVIDIA's devices, and its process is told of them."""
    stack.compose("--profile", "gpu", "up", "--detach", "--build", "--no-deps", "worker-gpu")
    try:
        container = stack.containers("worker-gpu")[0]
        requests = stack.inspect(container)["HostConfig"]["DeviceRequests"]
        assert [(one["Driver"], one["Count"], one["Capabilities"]) for one in requests] == [("nvidia", -1, [["gpu"]])]
        environ = stack.inside(container, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ").stdout.splitlines()
        assert "NVIDIA_VISIBLE_DEVICES=all" in environ
    finally:
        stack.compose("--profile", "gpu", "rm", "--stop", "--force", "worker-gpu")
    configured = json.loads(stack.compose("config", "--format", "json"))
    assert "worker-gpu" not in configured["services"], "without the profile it would start"


CHECKS = (
    non_root,
    powerless,
    read_only,
    limits,
    no_secret_shown,
    lean_images,
    no_way_out,
    loopback_only,
    redis_asks,
    api_asks,
    gpu_request,
)
