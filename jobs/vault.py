"""Secrets of a team: encrypted under a key that the database does not hold."""

import json

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from stoker.errors import InvalidInput, SettingInvalid

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
