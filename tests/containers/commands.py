"""Run commands, and show what went wrong in a few lines without anybody's addresses."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

SHOWN = 25  # lines
_URL = re.compile(r"\b([a-z][a-z0-9+.-]*)://\S+")


class CommandFailed(AssertionError):
    """A command did not end as it should."""


def run(
    command: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    text: str | None = None,
    check: bool = True,
    seconds: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command; ``text`` is its input.

    Raises CommandFailed, with its last words.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env=environ, cwd=folder, input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{' '.join(words)[:300]}: not done after {seconds:g} s") from None
    if check and done.returncode != 0:
        last = _URL.sub(r"\1://…", "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN:]))
        raise CommandFailed(f"{' '.join(words)[:300]}: exit code {done.returncode}\n{last}")
    return done
