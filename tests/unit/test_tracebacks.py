"""From the end of a log to a failure class."""

import pytest

from stoker.workers.tracebacks import EVIDENCE_LIMIT, explain

CHAINED = """
Traceback (most recent call last):
  File "train.py", line 1, in <module>
    import torchx
ModuleNotFoundError: No module named 'torchx'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "train.py", line 3, in <module>
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB
a line of the launcher
"""


@pytest.mark.parametrize(
    ("printed", "klass", "words"),
    [
        (CHAINED, "gpu_out_of_memory", "20.00 GiB"),
        ("Traceback (most recent call last):\nImportError: cannot import name 'x' from 'y'", "import_error", "'x'"),
        ("Traceback (most recent call last):\n  x\nOSError: [Errno 27] File too large", "user_error", "Errno 27"),
        ("Traceback (most recent call last):\n  x\nRuntimeError: CUDA error: device-side", "user_error", "CUDA"),
        (
            "Traceback (most recent call last):\n  x\nRuntimeError: DefaultCPUAllocator: can't allocate memory",
            "host_out_of_memory",
            "allocate",
        ),
        ("a Traceback (most recent call last): in the middle", "user_error", "exit code 1"),
        ("Traceback (most recent call last):", "user_error", "exit code 1"),
        ("Traceback (most recent call last):\n!!!", "user_error", "exit code 1"),
        ("", "user_error", "exit code 1"),
    ],
)
def test_the_last_exception_that_was_printed_decides(printed: str, klass: str, words: str) -> None:
    failure = explain(1, printed)
    assert failure.klass == klass
    assert words in failure.evidence
    assert failure.fix


@pytest.mark.parametrize(
    ("frame", "raised", "network"),
    [
        ('File "/usr/lib/python3.11/socket.py", line 232', "PermissionError: [Errno 1] Operation not permitted", True),
        ("x", "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", True),
        ("x", "socket.gaierror: [Errno -3] Temporary failure in name resolution", True),
        ("x", "urllib.error.URLError: <urlopen error [Errno 1] Operation not permitted>", True),
        ("x", "PermissionError: [Errno 1] Operation not permitted", False),
        ("x", "PermissionError: [Errno 13] Permission denied: '/etc/shadow'", False),
        ('File "/usr/lib/python3.11/socket.py", line 232', "ConnectionRefusedError: [Errno 111] refused", False),
    ],
)
def test_who_wanted_a_network_is_told_how_to_ask_for_it(frame: str, raised: str, network: bool) -> None:
    failure = explain(1, f"Traceback (most recent call last):\n  {frame}\n{raised}\n")
    assert ("network: open" in failure.fix) is network


def test_of_a_long_traceback_beginning_and_end_are_evidence() -> None:
    failure = explain(1, "Traceback (most recent call last):\n" + "  a line\n" * 2000 + "ValueError: the end")
    assert failure.evidence.startswith("Traceback")
    assert failure.evidence.endswith("ValueError: the end")
    assert len(failure.evidence) <= EVIDENCE_LIMIT + 3
