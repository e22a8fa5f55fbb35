"""How a value from outside stands in a sentence: escaped once."""

import pytest

from stoker.quoting import quoted


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("plain", "'plain'"),
        ("C:\\new", r"'C:\new'"),
        ("a\nb\x1b", r"'a\u000ab\u001b'"),
        ('it\'s "ü"', "'it's \"ü\"'"),
        ("\ud800\u202e", r"'\ud800\u202e'"),
        ("x" * 61, f"'{'x' * 60}…'"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (["ü"], '["ü"]'),
        ({(1, 2): 3}, "{}"),
    ],
)
def test_a_value_is_quoted_as_it_was_written(value: object, words: str) -> None:
    assert quoted(value) == words
