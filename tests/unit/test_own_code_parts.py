"""The parts that own code goes through: unpacked, masked, explained, and what it leaves found without following."""

import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import cast

import pytest

from stoker.errors import DataDamaged
from stoker.settings import Settings
from stoker.training.failure import TrainingFailed
from stoker.training.masking import MASK, Mask
from stoker.workers import outputs, own_findings, pip, unpacking
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Fake, Nothing
from stoker.workers.environments import Building, Environments
from stoker.workers.findings import FindingsRefused
from stoker.workers.interpreters import Interpreter, of_worker
from stoker.workers.logfile import LogFile
from stoker.workers.tracebacks import EVIDENCE_LIMIT, explain
from stoker.workers.usage import Meter
from tests.support.own_code import tar_of
from tests.support.waiting import wait_for
from tests.support.worker_parts import NEVER_STARTED

SECRET = "swordfish"
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


def nothing() -> None:
    """Nobody has asked for anything."""


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


def test_outputs_are_plain_files_within_limits(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(bytes(60))
    (folder / "deep" / "b").write_bytes(bytes(60))
    (folder / "deep" / "c").write_bytes(bytes(30))
    with (folder / "sparse").open("wb") as sparse:
        sparse.truncate(100 * 10**9)
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    found = outputs.find(folder, limit_bytes=100)
    assert found.paths == ("a", "deep/c")
    assert len(found.notes) == 3
    assert "100,000,000,000 bytes" in "".join(found.notes)


def test_refused_outputs_are_named_up_to_a_limit(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}\n").touch()
    found = outputs.find(tmp_path, 10**9)
    assert found.paths == ()
    assert found.notes[-1] == "15 more outputs were not kept"


def test_of_an_absent_output_folder_nothing_is_found(tmp_path: Path) -> None:
    assert outputs.find(tmp_path / "missing", 1).paths == ()


def test_of_an_output_folder_that_became_a_link_not_even_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "of another team").touch()
    folder = tmp_path / "output"
    folder.symlink_to(tmp_path, target_is_directory=True)
    found = outputs.find(folder, 10**9)
    assert found.paths == ()
    assert "another team" not in "".join(found.notes)


def test_code_is_unpacked_with_its_modes(tmp_path: Path) -> None:
    archive, folder = tmp_path / "code.tar", tmp_path / "work"
    archive.write_bytes(tar_of({"run.sh": "#!/bin/sh\n", "inner/data.csv": "1"}, executable=("run.sh",)))
    folder.mkdir()
    unpacking.unpack_code(archive, folder, nothing)
    assert (folder / "inner" / "data.csv").read_text() == "1"
    assert [(folder / name).stat().st_mode & 0o777 for name in ("run.sh", "inner/data.csv")] == [0o755, 0o644]


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b", "a//b"])
def test_code_whose_names_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    archive, folder = tmp_path / "code.tar", tmp_path / "work"
    archive.write_bytes(tar_of({name: "x"}))
    folder.mkdir()
    with pytest.raises(DataDamaged):
        unpacking.unpack_code(archive, folder, nothing)
    assert list(folder.rglob("*.*")) == []


def test_a_data_set_whose_names_no_disk_can_hold_together_is_unpacked_without_some(tmp_path: Path) -> None:
    archive, folder = tmp_path / "set.tar", tmp_path / "tree"
    archive.write_bytes(tar_of({"a": "1", "a/b": "2", "c/d": "3", "c": "4", "x" * 300: "5", "e": "6"}))
    folder.mkdir()
    left_out = unpacking.unpack_dataset(archive, folder, nothing)
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "e" in kept
    assert len(kept) == 3
    assert len(left_out) == 3


def test_code_with_links_or_no_archive_is_refused(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for content in (made.getvalue(), b"no tar" * 1000):
        (tmp_path / "code.tar").write_bytes(content)
        with pytest.raises(DataDamaged):
            unpacking.unpack_code(tmp_path / "code.tar", tmp_path, nothing)


def test_what_pip_prints_names_no_place_where_packages_are_found() -> None:
    said = (
        "Looking in indexes: https://user:pw@host.lab/simple, https://other\n"
        "Downloading https://host.lab/files/tiny-1.0.whl (3 kB)\n"
        "Processing /opt/wheels/tiny-1.0.whl\n"
        "WARNING: HTTPSConnectionPool(host='host.lab', port=443): Max retries exceeded\n"
        "Successfully installed tiny-1.0\n"
    )
    shown = pip.hide_addresses(said)
    assert "host.lab" not in shown
    assert "pw" not in shown
    assert "/opt" not in shown
    assert "…/tiny-1.0.whl (3 kB)" in shown
    assert "Successfully installed tiny-1.0" in shown


def test_pip_is_told_where_packages_are_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text("[global]\nfind-links = /opt/wheels\n  file:///srv/simple\n")
    environ = {"HOME": str(tmp_path), "PIP_INDEX_URL": "https://host.lab", "STOKER_DATABASE_URL": "secret"}
    told = pip.environment_of(environ)
    assert told == {"PIP_INDEX_URL": "https://host.lab", "PIP_CONFIG_FILE": str(tmp_path / ".config/pip/pip.conf")}
    read = pip.package_sources(told)
    assert {"/opt/wheels", "/srv/simple", told["PIP_CONFIG_FILE"]} <= set(read)
    assert not [path for path in read if "host.lab" in path]


def test_what_an_installation_made_a_link_of_is_not_opened_to_its_job(tmp_path: Path) -> None:
    packages = tmp_path / "environment/lib/python/site-packages"
    packages.parent.mkdir(parents=True)
    packages.symlink_to("/")
    layered = Interpreter(tmp_path / "environment/bin/python", (packages, *of_worker().packages))
    opened = [folder.resolve() for folder in layered.folders]
    assert opened == [tmp_path / "environment", *(folder.resolve() for folder in of_worker().packages)]


def test_packages_are_known_by_names_and_versions_that_can_be_stored(tmp_path: Path) -> None:
    for name in (b"fine-1.0+cpu.dist-info", b"bad-\x80.dist-info", b"worse-1\n2.dist-info"):
        (tmp_path / os.fsdecode(name)).mkdir()
    assert Interpreter(tmp_path / "bin/python", (tmp_path,)).installed() == {"fine": "1.0+cpu"}


def test_a_log_is_never_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the worker")
    (tmp_path / "output.log").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        LogFile(tmp_path / "output.log")


def test_an_administrator_forbids_environments() -> None:
    forbidding = Environments(Settings(environments="forbidden"), NEVER_STARTED, {}, Bounds("open"))
    unread = cast("Building", None)  # it does not come to that
    with pytest.raises(TrainingFailed, match="STOKER_ENVIRONMENTS=forbidden"), forbidding.held(unread):
        pass


def test_the_workers_python_knows_what_is_installed(tmp_path: Path) -> None:
    worker = of_worker()
    assert worker.installed()["pytest"] == pytest.__version__
    assert worker.command(["python3", "-c", "x"], tmp_path)[1] == [str(worker.python), "-c", "x"]
    assert worker.command(["sh", "-c", "x"], tmp_path)[0].endswith("/sh")
    with pytest.raises(TrainingFailed, match=r"no command nothing\.sh"):
        worker.command(["nothing.sh"], tmp_path)


@pytest.mark.parametrize(
    ("document", "accuracy", "noted"),
    [("{}", None, False), ('{"accuracy": 0.9}', 0.9, False), ('{"accuracy": 93.1}', 93.1, True)],
)
def test_a_script_says_what_it_likes_of_itself_and_that_is_marked(
    tmp_path: Path, document: str, accuracy: float | None, noted: bool
) -> None:
    (tmp_path / "result.json").write_text(document)
    found = own_findings.read(tmp_path, {"path": "result.json"}, None)
    assert found.document is not None
    assert found.document["self_reported"] is True
    assert found.document.get("accuracy") == accuracy
    assert bool(found.notes) == noted


def test_a_script_without_a_result_hands_in_none_and_one_that_is_no_document_is_refused(tmp_path: Path) -> None:
    assert own_findings.read(tmp_path, None, None).document is None
    for text in ("[]", '{"loss": NaN}', '{"loss": 1e999}', "x" * 33_000_000):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(FindingsRefused):
            own_findings.read(tmp_path, {"path": "result.json"}, None)


def test_a_meter_tells_computing_from_waiting(tmp_path: Path) -> None:
    meter, pid = Meter(Nothing(), []), os.getpid()
    meter.look(pid, 10.0)
    began = time.process_time()
    while time.process_time() < began + 0.2:
        pass
    assert not meter.look(pid, 10.5)  # it looks once a second
    assert meter.look(pid, 11.1)
    assert not meter.look(pid, 100.0)  # so little, for so long
    assert meter.cpu_seconds >= 0.2
    assert meter.gpu_bytes is None


def test_a_meter_keeps_the_most_that_a_trainer_held_of_its_devices(tmp_path: Path) -> None:
    pid = os.getpid()

    def hold(size: int) -> Fake:
        memory = {str(pid): size, "1": 9 * 10**9}  # the other one is somebody else
        device = {"uuid": "GPU-a", "model": "H100", "memory_bytes": 80 * 10**9, "bus": "0", "memory": memory}
        (tmp_path / "devices.json").write_text(json.dumps([device]))
        return Fake(tmp_path / "devices.json")

    meter = Meter(hold(5 * 10**9), ["GPU-a"])
    for now, size in ((0.0, 5 * 10**9), (20.0, 3 * 10**9)):
        hold(size)
        meter.look(pid, now)
        wait_for(lambda: meter.answered, 10, "the driver's answer")
        meter.look(pid, now + 1)
    assert meter.gpu_bytes == 5 * 10**9
    meter.close()
