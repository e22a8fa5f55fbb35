"""Who is told of a job's end: a webhook or a mailbox, as a spec names it. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from stoker.errors import InvalidInput
from stoker.quoting import quoted, shown

FIELD = "notify"
MOST_CHARACTERS = 1000
MOST_MAIL_CHARACTERS = 254  # RFC 5321
USUAL_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?", re.ASCII)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)  # the C library takes 2130706433 and 127.1 for addresses
_PLAIN = re.compile(r"[\x21-\x7e]+")  # ASCII that can be seen: no blank and no line break ends up in a request
_LOCAL = re.compile(r"[A-Za-z0-9_%+-]+(\.[A-Za-z0-9_%+-]+)*", re.ASCII)  # before the @: nothing that needs quotes
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a notification is posted to."""

    secure: bool  # https
    host: str  # a name or an address, an IPv6 one without brackets; lower case
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == USUAL_PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """Without path and query, in which services like to keep a secret."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where a notification is mailed to."""

    local: str
    domain: str  # lower case

    @property
    def shown(self) -> str:
        """The address."""
        return f"{self.local}@{self.domain}"


Recipient = Webhook | Mailbox


def recipient(text: str) -> Recipient:
    """Read one entry of `notify`.

    Raises InvalidInput.
    """
    if len(text) > MOST_CHARACTERS or not _PLAIN.fullmatch(text):
        raise InvalidInput(FIELD, f"{quoted(text)} is neither", f"write a URL or an address, {_HOW}")
    return _webhook(text) if "://" in text else mailbox(text)


_HOW = "such as https://hooks.lab/stoker or ada@lab.org, of printable ASCII, at most 1000 characters"


def mailbox(text: str, field: str = FIELD) -> Mailbox:
    """Read a plain mail address; raises InvalidInput for ``field``."""
    local, at, domain = text.rpartition("@")
    domain = domain.lower()
    plain = _LOCAL.fullmatch(local) and len(local) <= 64 and _DOMAIN.fullmatch(domain)
    if not at or not plain or len(text) > MOST_MAIL_CHARACTERS:
        raise InvalidInput(
            field, f"{quoted(text)} is no mail address", "write name@domain, of letters, digits, . _ + -"
        )
    return Mailbox(local, domain)


def _webhook(text: str) -> Webhook:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidInput(FIELD, "is not a URL", "check host and port") from None
    if parts.scheme not in USUAL_PORTS:
        raise InvalidInput(FIELD, f"{shown(parts.scheme)}: is not posted to", "use https:// or http://")
    if "@" in parts.netloc:
        raise InvalidInput(FIELD, "the URL holds a user or password", "leave them out; requests are signed instead")
    if parts.fragment or "\\" in text:
        raise InvalidInput(FIELD, "the URL holds a # or a backslash", "leave it out")
    host = (parts.hostname or "").rstrip(".")
    if not (_HOST.fullmatch(host) or _is(ipaddress.IPv6Address, host)) or len(host) > 253 or port == 0:
        raise InvalidInput(FIELD, f"{quoted(host)} is no host", "write a name in ASCII (xn--…) or an address")
    if ":" not in host and _NUMBER.fullmatch(host.rpartition(".")[2]) and not _is(ipaddress.IPv4Address, host):
        raise InvalidInput(FIELD, f"{quoted(host)} is an odd way to write an address", "write it as four numbers")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Webhook(parts.scheme == "https", host, port or USUAL_PORTS[parts.scheme], target)


def _is(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], host: str) -> bool:
    try:
        return "%" not in host and bool(kind(host))
    except ValueError:
        return False


def _checked(text: str) -> str:
    recipient(text)
    return text


RecipientText = Annotated[str, AfterValidator(_checked)]
