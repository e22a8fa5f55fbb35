"""What an engine changes of the machine's network, and how that, and nothing else, is undone."""

import json
import re
import shlex
from dataclasses import asdict, dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from tests.containers.commands import run

ADDRESSES = ip_network("172.30.0.0/16")  # of all our bridges and containers
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = ("filter", "nat")
OURS = re.compile(r"\bDOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b|\b172\.30\.")  # in a rule that came since


@dataclass(frozen=True, slots=True)
class Network:
    """The machine's network as it was found."""

    forwarding: str
    bridges: list[str]
    rules: dict[str, list[str]]  # by table, as iptables-save says them, without counters

    @classmethod
    def now(cls) -> "Network":
        """As it is."""
        listed = json.loads(run(["ip", "-json", "link", "show", "type", "bridge"]).stdout or "[]")
        bridges = [link["ifname"] for link in listed if link]
        return cls(FORWARDING.read_text(), bridges, {table: _rules(table) for table in TABLES})

    @classmethod
    def load(cls, file: Path) -> "Network":
        """As it was written down."""
        return cls(**json.loads(file.read_text()))

    def save(self, file: Path) -> None:
        """Write it down, for whoever has to clear up after us."""
        file.write_text(json.dumps(asdict(self)))

    def restore(self) -> None:
        """Take away what the engine made since: bridges, rules, chains. What others made meanwhile stays."""
        for bridge in self._our_bridges():
            run(["ip", "link", "delete", bridge])
        for table, rules in Network.now().rules.items():
            for command in undoing(self.rules[table], rules):
                run(["iptables", "--table", table, *command])
        FORWARDING.write_text(self.forwarding)

    def left(self) -> list[str]:
        """What of the engine's is still there, in words."""
        rules = Network.now().rules
        commands = [shlex.join(one) for table in TABLES for one in undoing(self.rules[table], rules[table])]
        forwarding = [] if FORWARDING.read_text() == self.forwarding else [str(FORWARDING)]
        return self._our_bridges() + commands + forwarding

    def _our_bridges(self) -> list[str]:
        """The bridges with an address of ours, or a name that only an engine gives, that were not there before."""
        found = []
        for link in filter(None, json.loads(run(["ip", "-json", "address", "show", "type", "bridge"]).stdout or "[]")):
            ours = any(_is_ours(address) for address in link["addr_info"]) or OURS.fullmatch(link["ifname"])
            if ours and link["ifname"] not in self.bridges:
                found.append(str(link["ifname"]))
        return found


def _is_ours(address: dict[str, Any]) -> bool:
    return address["family"] == "inet" and ip_address(address["local"]) in ADDRESSES


def undoing(before: list[str], now: list[str]) -> list[list[str]]:
    """The arguments of iptables that take an engine's rules, chains and policies out of a table, in this order.

    Both are lines of iptables-save: ``:CHAIN POLICY`` and ``-A CHAIN …``.
    """
    came = [line for line in now if line not in before]
    chains = [line.split()[0][1:] for line in came if line.startswith(":DOCKER")]
    rules = [shlex.split(line) for line in came if line.startswith("-A ") and OURS.search(line)]
    jumps = [["--delete", *rule[1:]] for rule in rules if rule[1] not in chains]
    policy = next((line.split()[1] for line in before if line.startswith(":FORWARD ")), "ACCEPT")
    dropped = [["--policy", "FORWARD", policy]] if ":FORWARD DROP" in came else []
    emptied = [["--flush", chain] for chain in chains]
    return jumps + emptied + [["--delete-chain", chain] for chain in chains] + dropped


def _rules(table: str) -> list[str]:
    """The chains with their policies and the rules."""
    lines = run(["iptables-save", "-t", table]).stdout.splitlines()
    return [line.split(" [")[0] if line[0] == ":" else line for line in lines if line[:1] in {":", "-"}]
