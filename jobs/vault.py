"""Secrets of a team: encrypted under a key that the database does not hold."""

import json
from collections.abc import Iterable

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from stoker.errors import InvalidInput, SettingInvalid

MASK = "***"
SHORTEST_MASKED = 6  # characters: what is shorter would be found in words that are no secret
MAKE_KEY = "openssl rand -base64 32 | tr '+/' '-_'"


class Vault:
    """Seals and opens values with STOKER_SECRET_KEY: one key, or several with commas, of which the first seals."""

    def __init__(self, key: str | None) -> None:
        """Raises SettingInvalid for a key that is none."""
        self._keys: MultiFernet | None = None
        if key is None:
            return
        try:
            self._keys = MultiFernet([Fernet(each.strip()) for each in key.split(",")])
        except ValueError:
            raise SettingInvalid(
                "STOKER_SECRET_KEY", "is not 32 bytes in url-safe base64", f"make one: {MAKE_KEY}"
            ) from None

    @property
    def usable(self) -> bool:
        """Whether there is a key."""
        return self._keys is not None

    def seal(self, team_id: int, name: str, value: str) -> bytes:
        """Encrypt a value for this team and name alone.

        Raises InvalidInput: there is no key.
        """
        if self._keys is None:
            raise InvalidInput(
                "secrets", "this server keeps none: STOKER_SECRET_KEY is not set", f"set it to a key: {MAKE_KEY}"
            )
        return self._keys.encrypt(json.dumps([team_id, name, value]).encode())

    def open(self, team_id: int, name: str, ciphertext: bytes) -> str | None:
        """The value, or None: there is no key, or not the one that sealed it, or it belongs to another name."""
        if self._keys is None:
            return None
        try:
            owner, called, value = json.loads(self._keys.decrypt(ciphertext))
        except InvalidToken:
            return None
        return str(value) if (owner, called) == (team_id, name) else None


class Mask:
    """Replaces secrets in a text that comes in pieces; of a value of several lines each line, none that is short."""

    def __init__(self, values: Iterable[str]) -> None:
        lines = {line.strip() for value in values for line in (value, *value.splitlines())}
        self._secrets = sorted((line for line in lines if len(line) >= SHORTEST_MASKED), key=len, reverse=True)
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text up to here, masked; an end that may be the beginning of a secret is held back."""
        text = self._held + piece
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        kept = max((_begun(text, secret) for secret in self._secrets), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def rest(self) -> str:
        """What was held back, once no more comes."""
        held, self._held = self._held, ""
        return held


def _begun(text: str, secret: str) -> int:
    """How many characters at the end of a text are the beginning of a secret."""
    for length in range(min(len(secret) - 1, len(text)), 0, -1):
        if text.endswith(secret[:length]):
            return length
    return 0
