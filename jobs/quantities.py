"""Amounts as people write them: ``4GB``, ``2GiB``, ``10m``, ``500 steps``."""

import re

from stoker.errors import InvalidInput
from stoker.quoting import quoted

_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]{1,3})", re.ASCII)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", re.ASCII)
_EVERY = re.compile(r"(\d{1,9})\s*(epoch|epochs|step|steps)", re.ASCII)


def parse_bytes(field: str, value: object) -> int:
    """Read an amount of memory: an integer of bytes, or a number with B, KB … TB (10^3n) or KiB … TiB (2^10n).

    Raises InvalidInput.
    """
    amount: float | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) and match[2].upper() in _BYTES:
        amount = float(match[1]) * _BYTES[match[2].upper()]
    if amount is None or not 0 < amount <= 2**50:
        how = 'write it like "4GB" or "512MiB", up to 1024TiB'
        raise InvalidInput(field, f"{quoted(value)} is not an amount of memory", how)
    return round(amount)


def parse_seconds(field: str, value: object) -> float:
    """Read a duration: a number of seconds, or a number with s, m, h or d; more than 0, at most 365 days.

    Raises InvalidInput.
    """
    amount: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        amount = value
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        amount = float(match[1]) * _SECONDS[match[2]]
    if amount is None or not 0 < amount <= 365 * 86400:
        raise InvalidInput(field, f"{quoted(value)} is not a duration up to 365 days", 'write it like "2h" or "90s"')
    return float(amount)


def parse_every(field: str, value: object) -> tuple[int, str]:
    """Read how often a checkpoint is written: ``1 epoch`` or ``500 steps``, as (count, "epochs" or "steps").

    Raises InvalidInput.
    """
    match = _EVERY.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match or int(match[1]) == 0:
        raise InvalidInput(field, f"{quoted(value)} is not an interval", 'write it like "1 epoch" or "500 steps"')
    return int(match[1]), "epochs" if match[2].startswith("epoch") else "steps"
