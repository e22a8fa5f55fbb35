"""A job's secrets in what it prints, wherever that is cut."""

import os
from pathlib import Path

import pytest

from stoker.training.masking import MASK, Mask
from stoker.workers.logfile import LogFile

SECRET = "swordfish"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_secret_is_masked_wherever_the_stream_is_cut(cut: int) -> None:
    mask = Mask([SECRET])
    whole = f"xx{SECRET}yy swordf".encode()
    shown = b"".join(mask.feed(whole[start : start + cut]) for start in range(0, len(whole), cut)) + mask.rest()
    assert shown.decode() == f"xx{MASK}yy swordf"


def test_lines_of_long_secrets_are_masked_and_short_words_are_not() -> None:
    mask = Mask(["a", "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----"])
    assert mask.text("a line: MIIEvQIBADANBg, aaa") == f"a line: {MASK}, aaa"
    assert Mask(["abcd", "abcdefgh"]).text("abcdefgh") == MASK


def test_a_log_hands_on_no_secret_even_where_bytes_were_left_out(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", Mask([SECRET]))
    os.write(log.writer, b"begins sword")
    text = log.read()
    os.write(log.writer, b"fish ends\n" + SECRET.encode() * 200_000)
    text += log.read_end() + log.tail
    log.close()
    assert "begins " in text
    assert MASK in text
    assert "bytes left out" in text
    assert "sword" not in text
    assert "fish" not in text.replace(" ends", "").replace("begins sword", "")


def test_a_log_is_never_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the worker")
    (tmp_path / "output.log").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        LogFile(tmp_path / "output.log")
