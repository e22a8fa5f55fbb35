"""``make gpu-check`` where there is no GPU, and on devices that are made up."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check(home: Path, devices: str) -> subprocess.CompletedProcess[str]:
    """Run it as make does."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environ |= {"PYTHONPATH": str(ROOT), "STOKER_HOME": str(home), "STOKER_WORKER_DEVICES": devices}
    return subprocess.run(
        [sys.executable, "-m", "stoker.stack.gpu_check"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = check(tmp_path, "none")
    assert done.returncode == 2
    assert done.stdout == (
        "no GPU here: NVIDIA's driver does not answer (`nvidia-smi` shows the same); nothing was checked\n"
    )


def test_a_file_of_devices_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    done = check(tmp_path, "fake:/no/such/file.json")
    assert done.returncode == 2
    assert done.stdout.startswith("Error: STOKER_WORKER_DEVICES: /no/such/file.json")
    assert done.stdout.count("\n") == 1


def test_each_device_is_checked_and_what_failed_says_what_to_do(tmp_path: Path) -> None:
    device = {"uuid": "MIG-1", "model": "NVIDIA Fake", "memory_bytes": 2 * 10**9, "bus": "0000:3B:00.0"}
    path = tmp_path / "gpus.json"
    path.write_text(json.dumps([device]))
    done = check(tmp_path, f"fake:{path}")
    lines = [line for line in done.stdout.splitlines() if line]
    assert done.returncode == 1, done.stdout
    assert "passed: device MIG-1: MIG instance of NVIDIA Fake, 2.0 GB, position 0, nobody else on it" in lines
    assert "passed: step MIG-1: a forked, confined child made a training step" in lines
    (failed,) = (line for line in lines if line.startswith("FAILED: share MIG-1: "))  # no CUDA refuses it anything
    assert "do not allow fractions" in failed
    passed = [line for line in lines if line.startswith("passed: ")]
    failures = [line for line in lines if line.startswith("FAILED: ")]
    assert lines[-1] == f"{len(passed)} passed, {len(failures)} failed"
