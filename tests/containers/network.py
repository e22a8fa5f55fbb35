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
ENGINES = re.compile(r"\bDOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b|\b172\.30\.")  # in a rule that came since
SHARED = "docker0"  # every engine's, with whichever address it got first


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

    def restore(self, alone: bool) -> None:
        """Take away what our engine made since: bridges, rules, chains. What others made meanwhile stays.

        Not ``alone``, another engine was started since: what engines share is its own now.
        """
        now = Network.now()
        bridges = self._bridges(alone)
        for table, rules in now.rules.items():
            for command in undoing(self.rules[table], rules, None if alone else bridges):
                run(["iptables", "--table", table, *command])
        for bridge in bridges:
            run(["ip", "link", "delete", bridge])
        if self.is_forwarding_ours(now, bridges, alone):
            FORWARDING.write_text(self.forwarding)

    def left(self, alone: bool) -> list[str]:
        """What of our engine's is still there, in words."""
        now, bridges = Network.now(), self._bridges(alone)
        found = {table: undoing(self.rules[table], now.rules[table], None if alone else bridges) for table in TABLES}
        commands = [shlex.join(one) for table in TABLES for one in found[table]]
        forwarding = FORWARDING.read_text() != self.forwarding and self.is_forwarding_ours(now, bridges, alone)
        return bridges + commands + ([str(FORWARDING)] if forwarding else [])

    def is_forwarding_ours(self, now: "Network", ours: list[str], alone: bool) -> bool:
        """Whether nobody else came since who may want packets to be forwarded."""
        return alone and not set(now.bridges) - {*self.bridges, *ours}

    def _bridges(self, alone: bool) -> list[str]:
        """Our bridges: those that were not there before with an address of ours, or with a name that only engines give.

        Not ``alone``: a name says nothing, and the bridge that engines share is no longer ours.
        """
        found = []
        for link in filter(None, json.loads(run(["ip", "-json", "address", "show", "type", "bridge"]).stdout or "[]")):
            addressed = any(_is_ours(address) for address in link["addr_info"])
            ours = addressed or ENGINES.fullmatch(link["ifname"]) if alone else addressed and link["ifname"] != SHARED
            if ours and link["ifname"] not in self.bridges:
                found.append(str(link["ifname"]))
        return found


def _is_ours(address: dict[str, Any]) -> bool:
    return address["family"] == "inet" and ip_address(address["local"]) in ADDRESSES


def undoing(before: list[str], now: list[str], bridges: list[str] | None = None) -> list[list[str]]:
    """The arguments of iptables that take an engine's rules, chains and policies out of a table, in this order.

    Both are lines of iptables-save: ``:CHAIN POLICY`` and ``-A CHAIN …``. With ``bridges``, another engine uses the
    chains: what goes is rules of these bridges, and of our addresses, and nothing else.
    """
    came = [line for line in now if line not in before]
    own = re.compile("|".join([r"\b172\.30\.(?!255\.)", *map(re.escape, bridges or ())]))  # 255: of the shared bridge
    ours = ENGINES if bridges is None else own
    rules = [shlex.split(line) for line in came if line.startswith("-A ") and ours.search(line)]
    if bridges is not None:
        return [["--delete", *rule[1:]] for rule in rules]
    chains = [line.split()[0][1:] for line in came if line.startswith(":DOCKER")]
    jumps = [["--delete", *rule[1:]] for rule in rules if rule[1] not in chains]
    policy = next((line.split()[1] for line in before if line.startswith(":FORWARD ")), "ACCEPT")
    dropped = [["--policy", "FORWARD", policy]] if ":FORWARD DROP" in came else []
    emptied = [["--flush", chain] for chain in chains]
    return jumps + emptied + [["--delete-chain", chain] for chain in chains] + dropped


def _rules(table: str) -> list[str]:
    """The chains with their policies and the rules."""
    lines = run(["iptables-save", "-t", table]).stdout.splitlines()
    return [line.split(" [")[0] if line[0] == ":" else line for line in lines if line[:1] in {":", "-"}]
