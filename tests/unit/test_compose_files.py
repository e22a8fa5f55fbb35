"""The compose files agree: a worker of another host is hardened, limited and stopped like one of the first host."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OWN = {"networks", "secrets", "profiles", "depends_on", "build", "environment"}  # where they differ on purpose


def _services(name: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return services


@pytest.mark.parametrize("service", ["worker-cpu", "worker-gpu"])
def test_a_worker_is_the_same_on_every_host(service: str) -> None:
    here, there = _services("docker-compose.yml")[service], _services("docker/compose.worker.yml")[service]
    assert {name: there[name] for name in there.keys() - OWN} == {name: here[name] for name in here.keys() - OWN}
    assert there["build"] | {"context": "."} == here["build"]
    same = here["environment"].keys() & there["environment"].keys()
    assert {name: there["environment"][name] for name in same} == {name: here["environment"][name] for name in same}
    assert {"STOKER_LEASE_SECONDS", "STOKER_NETWORK", "STOKER_SECRET_KEY_FILE"} <= same
    assert set(here["secrets"]) < set(there["secrets"])


def test_the_gateway_is_hardened_like_our_own_services() -> None:
    api, gateway = _services("docker-compose.yml")["api"], _services("docker/compose.tls.yml")["gateway"]
    for name in ("init", "read_only", "cap_drop", "security_opt", "restart", "logging"):
        assert gateway[name] == api[name], name


def test_redis_with_tls_is_told_what_it_is_told_without() -> None:
    plain, encrypted = _services("docker-compose.yml")["redis"], _services("docker/compose.tls.yml")["redis"]
    assert encrypted["command"][: len(plain["command"])] == plain["command"]
