"""Whom an administrator lets jobs notify: addresses of the network, and mail domains. Pure."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stoker.errors import InvalidInput, SettingInvalid
from stoker.jobs.recipients import FIELD, Mailbox, Recipient, Webhook, mailbox
from stoker.quoting import quoted

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Level = Literal["none", "listed", "public"]

SETTING = "STOKER_NOTIFY_ALLOW"
PORTS = frozenset({80, 443, 8080, 8443})  # of what is listed without a port
PUBLIC_PORTS = frozenset({443, 8443})  # of public addresses that nobody has listed, by https
_ENTRY = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\](?:/\d{1,3})?|[a-z0-9._-]+(?:/\d{1,2})?)(?::(?P<port>\d{1,5}))?", re.ASCII
)
_CARRIES_IPV4 = (  # an address of these leads to the IPv4 address that it holds: (network, bits below that address)
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (ipaddress.IPv6Network("::/96"), 0),  # compatible, long obsolete
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
_TEREDO = ipaddress.IPv6Network("2001::/32")
_SPECIAL = tuple(  # of the registries of special addresses, what some versions of Python take for global
    map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10"))
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is allowed: nothing, what is listed, or that and https to every public address."""

    level: Level = "listed"
    hosts: frozenset[tuple[str, int | None]] = frozenset()  # names, each with the one port or with the usual ones
    networks: frozenset[tuple[Network, int | None]] = frozenset()
    domains: frozenset[str] = frozenset()  # of mail

    @classmethod
    def of(cls, level: Level, text: str | None) -> "Allowance":
        """Read STOKER_NOTIFY_ALLOW: hosts, addresses, networks, each with a port or without, and @domains.

        Raises SettingInvalid.
        """
        hosts, networks, domains = set(), set(), set()
        for entry in (text or "").lower().replace(",", " ").split():
            if entry.startswith("@"):
                domains.add(_domain(entry))
                continue
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise SettingInvalid(SETTING, f"{quoted(entry, 80)} is not understood", _HOW)
            port = int(found["port"]) if found["port"] else None
            network = _network(found["host"])
            if network is not None:
                networks.add((network, port))
            else:
                hosts.add((found["host"].rstrip("."), port))
        return cls(level, frozenset(hosts), frozenset(networks), frozenset(domains))

    def refuse(self, wanted: Recipient, registered: str | None) -> None:
        """Raise InvalidInput for what is refused whatever its host's name leads to.

        ``registered`` is the mail address of the job's owner.
        """
        if self.level == "none":
            raise InvalidInput(FIELD, "this server notifies nobody: STOKER_NOTIFY is none", "leave it out")
        if isinstance(wanted, Mailbox):
            self._refuse_mailbox(wanted, registered)
        elif not self._may_use(wanted) or (
            (address := _literal(wanted.host)) is not None and not self.reachable(wanted, [address])
        ):
            raise InvalidInput(FIELD, f"{wanted.shown} is not allowed here", self._ways())

    def _refuse_mailbox(self, wanted: Mailbox, registered: str | None) -> None:
        own = mailbox(registered) if registered else None
        if wanted != own and wanted.domain not in self.domains:
            known = own.shown if own else "none; an administrator gives you one by `stoker user set --email`"
            raise InvalidInput(
                FIELD,
                f"{wanted.shown} is neither your registered address nor of a listed domain",
                f"your address: {known}",
            )

    def _may_use(self, wanted: Webhook) -> bool:
        """Whether any address could be good for this host and port."""
        if self._is_open_to(wanted):
            return True
        listed = [port for host, port in self.hosts if host == wanted.host] + [port for _, port in self.networks]
        return any(_fits(port, wanted.port) for port in listed)

    def reachable(self, wanted: Webhook, found: Iterable[Address]) -> list[Address]:
        """Of the addresses that the host's name leads to, those that may be connected to."""
        return [address for address in found if self._good(wanted, address)]

    def _good(self, wanted: Webhook, address: Address) -> bool:
        real = _carried(address) or address
        if any(real in network and _fits(port, wanted.port) for network, port in self.networks):
            return True
        if _never(real):
            return False
        if any(host == wanted.host and _fits(port, wanted.port) for host, port in self.hosts):
            return True
        return self._is_open_to(wanted) and real.is_global

    def _is_open_to(self, wanted: Webhook) -> bool:
        """Whether it is good without being listed, if its address is a public one."""
        return self.level == "public" and wanted.secure and wanted.port in PUBLIC_PORTS

    def _ways(self) -> str:
        if self.level == "listed":
            return f"an administrator may list it: {SETTING}"
        return f"take a public host by https, port 443 or 8443; an administrator may list others: {SETTING}"


_HOW = "list hosts, addresses or networks with or without a port, and @domains: hooks.lab:9000 10.1.0.0/16 @lab.org"


def _domain(entry: str) -> str:
    try:
        return mailbox(f"anybody{entry}").domain
    except InvalidInput:
        raise SettingInvalid(SETTING, f"{quoted(entry, 80)} is no mail domain", _HOW) from None


def _network(text: str) -> Network | None:
    """The network or the one address that an entry names; None for a host's name. Raises SettingInvalid."""
    try:
        return ipaddress.ip_network(text.replace("[", "").replace("]", ""))
    except ValueError:
        if "/" in text or text.startswith("[") or text.rpartition(".")[2].isdigit():
            raise SettingInvalid(SETTING, f"{quoted(text, 80)} is no network", "write it like 10.1.0.0/16") from None
        return None


def _fits(listed: int | None, port: int) -> bool:
    return port in PORTS if listed is None else port == listed


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _never(address: Address) -> bool:
    """What is reached only where the network itself is listed, such as a cloud's metadata at 169.254.169.254."""
    odd = address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    return odd or any(address in network for network in _SPECIAL)


def _carried(address: Address) -> Address | None:
    """The IPv4 address to which an IPv6 address leads, if it does."""
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:  # `::` and `::1` are what they say
        return None
    if address in _TEREDO:
        return ipaddress.IPv4Address(~int(address) & 0xFFFFFFFF)
    for network, below in _CARRIES_IPV4:
        if address in network:
            return ipaddress.IPv4Address(int(address) >> below & 0xFFFFFFFF)
    return None
