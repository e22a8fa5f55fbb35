"""What `make containers` takes away afterwards: its engine's part, and nothing of what others did."""

import shlex
from pathlib import Path

from tests.containers import engine, network

BEFORE = [":INPUT ACCEPT", ":FORWARD ACCEPT", "-A FORWARD -i eth0 -j LOG"]
ENGINE = [
    ":INPUT ACCEPT",
    ":FORWARD DROP",
    ":DOCKER -",
    ":DOCKER-USER -",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o br-908a08312ec6 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i eth0 -j LOG",
    "-A DOCKER -d 172.30.1.3/32 ! -i br-908a08312ec6 -o br-908a08312ec6 -p tcp -m tcp --dport 8000 -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
]
OTHERS = [
    ":LIBVIRT_FWO -",
    "-A FORWARD -o virbr0 -j ACCEPT",
    '-A FORWARD -s 10.0.0.0/8 -m comment --comment "from the lab" -j ACCEPT',
]


def undoing(before: list[str], now: list[str], bridges: list[str] | None = None) -> list[str]:
    """What iptables is told, as one would type it."""
    return [shlex.join(arguments) for arguments in network.undoing(before, now, bridges)]


def test_the_engines_rules_chains_and_policy_go_in_an_order_that_works() -> None:
    assert undoing(BEFORE, ENGINE) == [
        "--delete FORWARD -j DOCKER-USER",
        "--delete FORWARD -o br-908a08312ec6 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "--flush DOCKER",
        "--flush DOCKER-USER",
        "--delete-chain DOCKER",
        "--delete-chain DOCKER-USER",
        "--policy FORWARD ACCEPT",
    ]


def test_what_others_added_meanwhile_stays() -> None:
    assert undoing(BEFORE, BEFORE + OTHERS) == []
    assert undoing(BEFORE, ENGINE + OTHERS) == undoing(BEFORE, ENGINE)


def test_what_was_there_before_stays_and_a_policy_that_others_chose() -> None:
    assert undoing(ENGINE, ENGINE) == []
    strict = [":FORWARD DROP", *BEFORE[2:]]
    assert "--policy FORWARD ACCEPT" not in undoing(strict, ENGINE)


def test_a_table_that_did_not_exist_is_left_open() -> None:
    assert undoing([], [":FORWARD DROP"]) == ["--policy FORWARD ACCEPT"]


def test_addresses_of_containers_are_ours_whatever_the_interface() -> None:
    nat = [
        "-A POSTROUTING -s 172.30.2.0/24 ! -o br-f9d11ea6a8a1 -j MASQUERADE",
        "-A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE",
    ]
    assert undoing([], nat) == ["--delete POSTROUTING -s 172.30.2.0/24 '!' -o br-f9d11ea6a8a1 -j MASQUERADE"]


def test_where_another_engine_was_started_since_only_our_bridges_and_addresses_go() -> None:
    another = [
        "-A FORWARD -o br-0123456789ab -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A DOCKER -d 172.18.0.2/32 ! -i br-0123456789ab -o br-0123456789ab -p tcp -m tcp --dport 80 -j ACCEPT",
        "-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2",
        "-A POSTROUTING -s 172.30.255.0/24 ! -o docker0 -j MASQUERADE",  # it has found that bridge with our address
    ]
    bridged = [line for line in ENGINE if "br-908a08312ec6" in line]
    assert undoing(BEFORE, ENGINE + another, ["br-908a08312ec6"]) == [
        shlex.join(["--delete", *shlex.split(line)[1:]]) for line in bridged
    ]
    assert undoing(BEFORE, another, []) == []


def test_packets_are_forwarded_as_long_as_somebody_else_has_come() -> None:
    found = network.Network("0\n", ["virbr0"], {})
    now = network.Network("1\n", ["virbr0", "br-908a08312ec6"], {})
    assert found.is_forwarding_ours(now, ["br-908a08312ec6"], alone=True)
    assert not found.is_forwarding_ours(now, ["br-908a08312ec6"], alone=False)
    assert not found.is_forwarding_ours(now, [], alone=True)


def test_control_groups_of_another_engine_are_left_alone(tmp_path: Path) -> None:
    for group in ("docker/aaaa", "memory/docker/bbbb", "stokers-engine/cccc", "memory/stokers-engine/dddd"):
        (tmp_path / group).mkdir(parents=True)
    assert engine.groups(tmp_path) == [tmp_path / "stokers-engine", tmp_path / "memory/stokers-engine"]
    assert f"/{engine.GROUP}" in engine.GROUPS
