"""Values from outside, made fit for the text of an error, a note or a table: each is escaped once, here."""

import json
import unicodedata

LONGEST = 60  # characters


def unprintable_character(text: str) -> str | None:
    """Name the first character that would not be seen, or would change how its neighbours are shown."""
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            return f"U+{ord(character):04X}"
    return None


def shown(text: str, limit: int = LONGEST) -> str:
    """A piece of a user's text: escaped where it would not be seen, and short."""
    text = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if not unprintable_character(c) else f"\\u{ord(c):04x}" for c in text)


def quoted(value: object, limit: int = LONGEST) -> str:
    """A value as its user wrote it: a text between quotes, anything else as JSON writes it; escaped once, and short."""
    if isinstance(value, str):
        return f"'{shown(value, limit)}'"
    return shown(json.dumps(value, default=str, ensure_ascii=False, skipkeys=True), limit)
