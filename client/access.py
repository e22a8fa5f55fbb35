"""Where the server is and with which token: argument, environment, `stoker up` here, or `stoker login`."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stoker.client.errors import NoServer
from stoker.errors import InvalidInput
from stoker.quoting import quoted
from stoker.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """An address, a token, and where each came from (an argument, a variable or a file)."""

    url: str
    token: str | None
    url_source: str
    token_source: str | None

    def __repr__(self) -> str:
        return f"Access({self.url!r}, token from {self.token_source})"  # never the token itself


def login_file() -> Path:
    """The file that `stoker login` writes."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "stoker" / "login.json"


def checked_url(url: str) -> str:
    """Return an address without its closing slash.

    Raises InvalidInput for anything but http:// or https:// with a host and without a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise InvalidInput("url", f"{quoted(url, 100)} is not an address: {error}", "write http://host:port") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise InvalidInput("url", f"{quoted(url, 100)} is not an address", "write http://host:port")
    return url.rstrip("/")


def checked_token(token: str, source: str) -> str:
    """Return a token without the blanks and line breaks around it; raises InvalidInput, and never shows it."""
    found = token.strip()
    if not found or not all("!" <= character <= "~" for character in found):
        raise InvalidInput(source, "is not a token: it holds a character that none has", "copy it again: stk_…")
    return found


def resolve(settings: Settings, url: str | None = None, token: str | None = None) -> Access:
    """Find the server: argument, then STOKER_URL, then `stoker up` of this home, then `stoker login`.

    A token found in a file is only ever used for the address that stands beside it.

    Raises NoServer; InvalidInput for an address or a token that is none.
    """
    pairs = [_up_files(settings), _login(login_file())]
    named, source = (url, "argument") if url else (settings.url, "STOKER_URL")
    if named is None:
        found = next((pair for pair in pairs if pair is not None), None)
        if found is None:
            raise NoServer
        named, source = found.url, found.url_source
    named = checked_url(named)
    if token or settings.token:
        origin = "argument" if token else "STOKER_TOKEN"
        return Access(named, checked_token(token or settings.token or "", origin), source, origin)
    beside = next((pair for pair in pairs if pair is not None and pair.url == named), None)
    if beside is None or beside.token is None:
        return Access(named, None, source, None)
    origin = str(beside.token_source)
    return Access(named, checked_token(beside.token, origin), source, origin)


def _up_files(settings: Settings) -> Access | None:
    url, token = settings.home / "url", settings.home / "token"
    try:
        return Access(checked_url(url.read_text().strip()), _text(token), str(url), str(token))
    except (OSError, UnicodeDecodeError, InvalidInput):  # absent, of another user, or half-written: not ours to use
        return None


def _login(path: Path) -> Access | None:
    try:
        document = json.loads(path.read_text())
        return Access(checked_url(document["url"]), str(document["token"]), str(path), str(path))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def remember(url: str, token: str) -> Path:
    """Keep address and token for later calls, readable by this user alone; returns the file."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_suffix(f".{os.getpid()}")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
        json.dump({"url": checked_url(url), "token": token}, file)
    aside.replace(path)
    return path
