"""From what was seen of a trainer to how its attempt ended, and when a result is believed."""

import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from stoker.jobs.lifecycle import Outcome
from stoker.workers import findings
from stoker.workers.findings import FindingsRefused
from stoker.workers.logfile import FILE_BYTES, LogFile, clean
from stoker.workers.runs import Asked
from stoker.workers.supervision import Limit, Sight
from stoker.workers.trainers import LOST, SERVER_DIED
from stoker.workers.verdict import is_complete, judge, judge_own_code

RESULT = {"type": "result", "path": "result.json"}
MADE = {"type": "predictions", "path": "predictions.bin", "count": 2}
DOCUMENT = {"accuracy": 0.5, "classes": ["a", "b"], "test_images": 2}
MISSING = "Traceback (most recent call last):\n  import x\nModuleNotFoundError: No module named 'x'\n"
ROWS = struct.pack("<HHfHHf", 0, 0, 0.9, 1, 0, 0.8)


def failure(klass: str) -> dict[str, str]:
    """What a trainer says when it fails."""
    return {"class": klass, "evidence": "seen", "fix": "mend it"}


@pytest.mark.parametrize(
    ("asked", "sight", "outcome", "klass"),
    [
        (Asked.NOTHING, Sight(status=0), Outcome.FAILED, "user_error"),
        (Asked.NOTHING, Sight(status=3), Outcome.FAILED, "user_error"),
        (Asked.NOTHING, Sight(status=0, stopped=True), Outcome.FAILED, "signal"),
        (Asked.NOTHING, Sight(status=-signal.SIGSEGV), Outcome.FAILED, "signal"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL), Outcome.FAILED, "signal"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL, memory_kills=1), Outcome.FAILED, "host_out_of_memory"),
        (Asked.NOTHING, Sight(status=1, failure=failure("nan_loss")), Outcome.FAILED, "nan_loss"),
        (Asked.NOTHING, Sight(status=1, failure=failure("worker_lost")), Outcome.FAILED, "user_error"),
        (Asked.NOTHING, Sight(status=1, failure=failure("made_up")), Outcome.FAILED, "user_error"),
        (Asked.NOTHING, Sight(status=LOST, lost=SERVER_DIED), Outcome.LOST, "worker_lost"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL, lost="frozen for too long"), Outcome.LOST, "worker_lost"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL, limit=Limit.TIME), Outcome.FAILED, "time_limit"),
        (Asked.NOTHING, Sight(status=0, stopped=True, limit=Limit.TIME), Outcome.FAILED, "time_limit"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL, limit=Limit.STALLED), Outcome.FAILED, "stalled"),
        (Asked.CANCEL, Sight(status=-signal.SIGKILL), Outcome.CANCELLED, None),
        (Asked.CANCEL, Sight(status=1, failure=failure("nan_loss")), Outcome.CANCELLED, None),
        (Asked.CANCEL, Sight(), Outcome.CANCELLED, None),
        (Asked.STOP, Sight(status=0, stopped=True), Outcome.PREEMPTED, None),
        (Asked.STOP, Sight(status=-signal.SIGKILL), Outcome.PREEMPTED, None),
        (Asked.STOP, Sight(), Outcome.PREEMPTED, None),
        (Asked.STOP, Sight(status=1, failure=failure("nan_loss")), Outcome.FAILED, "nan_loss"),
        (Asked.PREEMPT, Sight(status=LOST, lost=SERVER_DIED), Outcome.LOST, "worker_lost"),
    ],
)
def test_what_was_seen_decides_how_it_ended(asked: Asked, sight: Sight, outcome: Outcome, klass: str | None) -> None:
    ending = judge(asked, sight)
    assert ending.outcome == outcome
    assert (ending.failure.klass if ending.failure else None) == klass


STOPPED = Sight(status=0, stopped=True)


@pytest.mark.parametrize(
    ("asked", "sight", "outcome", "klass"),
    [
        (Asked.NOTHING, Sight(status=0), Outcome.SUCCEEDED, None),
        (Asked.NOTHING, Sight(status=0, failure=failure("nan_loss")), Outcome.FAILED, "nan_loss"),
        (Asked.NOTHING, Sight(status=0, failure=failure("worker_lost")), Outcome.FAILED, "user_error"),
        (Asked.NOTHING, Sight(status=0, limit=Limit.TIME), Outcome.FAILED, "time_limit"),
        (Asked.NOTHING, Sight(status=1, limit=Limit.STALLED), Outcome.FAILED, "stalled"),
        (Asked.NOTHING, Sight(status=-signal.SIGKILL, memory_kills=1), Outcome.FAILED, "host_out_of_memory"),
        (Asked.NOTHING, Sight(status=1, memory_kills=1, printed=MISSING), Outcome.FAILED, "import_error"),
        (Asked.NOTHING, STOPPED, Outcome.FAILED, "signal"),
        (Asked.NOTHING, Sight(status=LOST, lost=SERVER_DIED), Outcome.LOST, "worker_lost"),
        (Asked.PREEMPT, Sight(status=0), Outcome.PREEMPTED, None),
        (Asked.PREEMPT, Sight(status=0, result=RESULT), Outcome.SUCCEEDED, None),
        (Asked.PREEMPT, STOPPED, Outcome.PREEMPTED, None),
        (Asked.STOP, Sight(status=143), Outcome.PREEMPTED, None),
        (Asked.STOP, Sight(status=1, failure=failure("nan_loss")), Outcome.FAILED, "nan_loss"),
        (Asked.CANCEL, Sight(status=0, result=RESULT), Outcome.CANCELLED, None),
    ],
)
def test_own_code_has_succeeded_by_its_exit_code_unless_it_was_asked_to_stop(
    asked: Asked, sight: Sight, outcome: Outcome, klass: str | None
) -> None:
    ending = judge_own_code(asked, sight)
    assert ending.outcome == outcome
    assert (ending.failure.klass if ending.failure else None) == klass


FAULT = "GPU-1: hardware error: Xid 79"


@pytest.mark.parametrize(
    ("sight", "unproven", "words"),
    [
        (Sight(status=1, failure=failure("device_error")), True, "seen\nthe worker found nothing wrong"),
        (Sight(status=1, failure=failure("device_error"), device_fault=FAULT), False, f"seen\n{FAULT}"),
        (Sight(status=-9, failure=failure("nan_loss"), limit=Limit.DEVICE, device_fault=FAULT), False, FAULT),
        (Sight(status=1, failure=failure("disk_full")), False, "seen"),
        (Sight(status=1, failure=failure("disk_full"), own_code=True), True, "seen"),
    ],
)
def test_what_costs_a_job_nothing_is_believed_only_where_the_worker_saw_it_too(
    sight: Sight, unproven: bool, words: str
) -> None:
    for judged in (judge(Asked.NOTHING, sight), judge_own_code(Asked.NOTHING, sight)):
        assert judged.failure is not None
        assert judged.failure.klass in ("device_error", "disk_full")
        assert judged.failure.unproven == unproven
        assert judged.failure.evidence.startswith(words)


def test_an_end_is_complete_only_with_result_and_predictions() -> None:
    assert is_complete(Sight(status=0, result=RESULT, predictions=MADE))
    assert not is_complete(Sight(status=0, result=RESULT))
    assert not is_complete(Sight(status=1, result=RESULT, predictions=MADE))


def hand_in(scratch: Path, document: Any = DOCUMENT, rows: bytes = ROWS) -> None:
    """Write what a trainer hands in."""
    (scratch / "result.json").write_text(document if isinstance(document, str) else json.dumps(document))
    (scratch / "predictions.bin").write_bytes(rows)


def test_findings_that_agree_are_read(tmp_path: Path) -> None:
    hand_in(tmp_path)
    found = findings.read(tmp_path, RESULT, MADE)
    assert (found.document, found.count, found.classes, found.packed) == (DOCUMENT, 2, ("a", "b"), ROWS)


@pytest.mark.parametrize(
    ("document", "rows", "word"),
    [
        (DOCUMENT | {"accuracy": 1.7}, ROWS, "accuracy 1.7"),
        (DOCUMENT | {"accuracy": "0.5"}, ROWS, "accuracy"),
        ('{"accuracy": NaN}', ROWS, "not JSON"),
        ("[" * 100_000, ROWS, "not JSON"),
        ('{"loss": 1e999}', ROWS, "not finite"),
        ('{"accuracy": 1' + "0" * 400 + "}", ROWS, "64 bits"),
        (DOCUMENT | {"note": "\ud800"}, ROWS, r"U\+D800"),
        ("[]", ROWS, "no document"),
        (DOCUMENT | {"note": "a\0b"}, ROWS, "cannot|can be stored|no document"),
        (DOCUMENT | {"classes": []}, ROWS, "no classes"),
        (DOCUMENT | {"classes": ["a"]}, ROWS, "no class"),
        (DOCUMENT | {"test_images": 3}, ROWS, "counts 3"),
        (DOCUMENT, ROWS[:-1], "were written"),
        (DOCUMENT, ROWS + b"x", "more than"),
        (DOCUMENT, struct.pack("<HHfHHf", 0, 0, float("nan"), 1, 0, 0.8), "probability"),
    ],
)
def test_findings_that_do_not_agree_are_refused(tmp_path: Path, document: Any, rows: bytes, word: str) -> None:
    hand_in(tmp_path, document, rows)
    with pytest.raises(FindingsRefused, match=word):
        findings.read(tmp_path, RESULT, MADE)


def test_only_plain_files_of_the_own_folder_are_read(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "secret").write_text("secret")
    (scratch / "link").symlink_to(tmp_path / "secret")
    (scratch / "folder").mkdir()
    os.mkfifo(scratch / "pipe")
    for name in ("../secret", "link", "folder", "pipe", "missing"):
        with pytest.raises(FindingsRefused):
            findings.read_limited(scratch, name, 100)


@pytest.mark.parametrize(("name", "value"), [("height", 65), ("width", 0), ("channels", 2), ("count", 4)])
def test_images_of_another_size_than_announced_are_refused(name: str, value: int) -> None:
    message = {"count": 3, "height": 8, "width": 8, "channels": 3}
    findings.check_images(message, 3 * 8 * 8 * 3)
    with pytest.raises(FindingsRefused):
        findings.check_images(message | {name: value}, 3 * 8 * 8 * 3)


def test_escape_sequences_and_carriage_returns_are_taken_out_of_a_log() -> None:
    assert clean(b"\x1b[31mred\x1b[0m\x00 10%\r20%\r\n\xff\x1b]0;title\x07") == "red 10%\n20%\n\ufffd"


def test_a_log_that_grows_without_end_is_emptied_and_read_on(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    for _ in range(FILE_BYTES // 2**20 + 2):
        os.write(log.writer, b"z" * 2**20)
    text = log.read_end()
    assert "bytes left out]" in text
    os.write(log.writer, b"the end\n")
    assert (tmp_path / "log").stat().st_size < 100
    assert log.read_end() == "the end\n"
    log.close()


def test_the_file_of_a_log_stays_small_while_its_writer_never_pauses(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log")
    sizes, text = [], ""
    for _ in range(8):
        for _ in range(FILE_BYTES // 2**22 + 1):
            os.write(log.writer, b"z" * 2**22)
        text += log.read()  # once between two bursts, as beside a trainer that is quicker than its reader
        sizes.append((tmp_path / "log").stat().st_size)
    assert max(sizes) <= FILE_BYTES
    assert "bytes left out]" in text
    log.close()
