"""What a job consumes, counted on real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from stoker.workers.consumption import LOOK_SECONDS, SETTLED_SECONDS, Consumption

HOLDS = """
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(int(line)))
    print(len(held), flush=True)
"""
PART = 50 * 10**6  # bytes


@pytest.fixture
def holder() -> Iterator["subprocess.Popen[str]"]:
    """A process that holds as much more as each line says."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


def hold(process: "subprocess.Popen[str]", size: int) -> None:
    """Let it take this many bytes, and wait until it has them."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{size}\n")
    process.stdin.flush()
    assert process.stdout.readline()


@pytest.mark.parametrize("age_seconds", [LOOK_SECONDS, SETTLED_SECONDS + 1])
def test_the_peak_of_a_job_is_seen_as_soon_as_it_has_begun(holder: "subprocess.Popen[str]", age_seconds: float) -> None:
    seen = Consumption(_began=time.monotonic() - age_seconds)
    hold(holder, PART)
    assert not seen.look(holder.pid, 10**9)
    assert PART < seen.peak_bytes < 2 * PART
    hold(holder, PART)
    seen.look(holder.pid, 10**9)
    assert 2 * PART < seen.peak_bytes < 3 * PART
    assert seen.tasks == 1


def test_a_job_that_has_just_begun_is_not_held_up(holder: "subprocess.Popen[str]") -> None:
    seen = Consumption(_began=time.monotonic() + 60)
    hold(holder, PART)
    assert not seen.look(holder.pid, 10**9)
    assert seen.peak_bytes == 0
    assert seen.look(holder.pid, PART)  # but one above its limit is counted at once
    assert seen.peak_bytes > PART
