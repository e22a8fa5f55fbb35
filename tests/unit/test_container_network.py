"""What `make containers` takes out of the firewall afterwards: its engine's part, and nothing of what others did."""

import shlex

from tests.containers import network

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


def undoing(before: list[str], now: list[str]) -> list[str]:
    """What iptables is told, as one would type it."""
    return [shlex.join(arguments) for arguments in network.undoing(before, now)]


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
