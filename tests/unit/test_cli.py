"""The command line without a server: usage, specs, and texts that shall do no harm."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stoker.client.access import checked_token
from stoker.client.cli import COMMANDS, Commands, cli
from stoker.client.commands_list import remarks
from stoker.client.forecasts import announced, behind_whom
from stoker.client.screen import amount, duration, safe, safe_lines
from stoker.client.specfile import assign, read_spec
from stoker.errors import InvalidInput

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(autouse=True)
def nobody(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is known."""
    monkeypatch.setenv("STOKER_HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_a_device_out_of_use_is_told_of_with_the_reason() -> None:
    devices = [{"uuid": "GPU-1", "quarantined": None}, {"uuid": "GPU-2", "quarantined": "in use by process 7"}]
    worker = {"state": "live", "notice": "jobs are NOT confined here", "devices": devices}
    assert remarks(worker) == ["jobs are NOT confined here", "GPU-2 is out of use: in use by process 7"]


@pytest.mark.parametrize("token", ["stk_é", "stk_a\nX-Other: b", "stk_a b", " "])
def test_a_token_that_is_none_is_refused_and_never_shown(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("STOKER_TOKEN", token)
    result = run("whoami")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("Error: STOKER_TOKEN: ")
    assert not [part for part in token.split() if part in result.stderr.removesuffix("stk_…\n")]


@pytest.mark.parametrize("name", ["login.json", "token"])
def test_a_token_in_a_file_that_is_none_is_never_shown(name: str, home: Path, tmp_path: Path) -> None:
    address, token = "http://127.0.0.1:9", "stk_a\nX-Other: b"
    if name == "token":
        (home / "url").write_text(address)
        (home / "token").write_text(token)
    else:
        (tmp_path / "stoker").mkdir()
        (tmp_path / "stoker" / "login.json").write_text(json.dumps({"url": address, "token": token}))
    result = run("whoami")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert f"{name}: is not a token" in result.stderr
    assert "stk_a" not in result.stderr


def test_line_breaks_around_a_token_are_no_part_of_it() -> None:
    assert checked_token("stk_abc\r\n", "STOKER_TOKEN") == "stk_abc"


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom stoker.client.cli import cli\ntry:\n    cli(['--help'])\nfinally:\n    print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in shown.stdout for name in COMMANDS)
    loaded = set(shown.stdout.splitlines()[-1].split())
    assert "click" in loaded
    assert not loaded & {"pydantic", "httpx", "rich", "yaml", "numpy", "torch", "fastapi", "sqlalchemy"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(("Usage: ", "usage: "))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("frobnicate",), 2, "No such command"),
        (("ps", "--frob"), 2, "No such option"),
        (("train", "--epochs", "many"), 2, "not a valid integer"),
        (("train",), 2, "train.dataset: is missing"),
        (("train", "-d", "digits", "-m", "resnet81"), 2, "resnet18"),
        (("train", "-d", "digits", "--epochs", "0"), 2, "train.epochs"),
        (("train", "-d", "digits", "--lr", "nan"), 2, "finite"),
        (("train", "-d", "digits", "--memory", "10XB"), 2, "memory"),
        (("train", "-d", "digits", "--name", "a\x1b[31m"), 2, "U+001B"),
        (("train", "-d", "digits", "--set", "epcohs=3"), 2, "did you mean epochs"),
        (("train", "-d", "digits", "--set", "epochs"), 2, "no assignment"),
        (("train", "-d", "digits", "--set", "epochs=true"), 2, "train.epochs"),
        (("submit", "/does/not/exist"), 2, "cannot read"),
        (("ps",), 5, "stoker up"),
        (("train", "-d", "digits"), 5, "stoker up"),
        (("login", "ftp://host"), 2, "not an address"),
    ],
)
def test_wrong_use_gets_a_sentence_and_its_code(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert "\x1b" not in result.stderr


def test_a_dry_run_prints_the_whole_spec_and_needs_no_server() -> None:
    options = ("--lr", "0.01", "--augment", "flip", "--gpus", "2", "--checkpoint-every", "500 steps", "--after", "3")
    result = run(
        "train", "-d", "digits", *options, "--set", "train.optimizer.momentum=0.5", "--set", "seed=7", "--dry-run"
    )
    assert result.exit_code == 0, result.stderr
    spec = json.loads(result.stdout)
    assert spec["train"]["optimizer"] | {"lr": 0.01, "momentum": 0.5} == spec["train"]["optimizer"]
    assert (spec["train"]["augment"], spec["train"]["seed"], spec["after"]) == (["flip"], 7, [3])
    assert (spec["resources"]["gpus"], spec["checkpoint"]["every"]) == (2, "500 steps")
    assert spec["stall_timeout"] == 600


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: &x [1]\nb: *x\n", "alias"),
        (b"a: 1\na: 2\n", "given twice"),
        (b"- 1\n", "no mapping"),
        (b"", "no mapping"),
        (b"a: [\n", "not YAML"),
        (b"a: \xff\n", "not UTF-8"),
        (b"a: !!python/object/apply:os.system [id]\n", "not YAML"),
        (b"[" * 5000, "nested too deep"),
        (b"a: " + b"x" * 1_000_001, "larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=words):
        read_spec(str(path))


@pytest.mark.parametrize("path", sorted(str(path) for path in EXAMPLES.glob("*.yaml")))
def test_every_example_is_a_spec(path: str) -> None:
    assert run("submit", path, "--dry-run").exit_code == 0


def test_yaml_means_what_people_think(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("lr: 1e-3\nhalf: .5\nwhole: 3\nday: 2020-01-01\nlimit: 2h\nversion: 1\nbig: 1.5e+10\n")
    wanted = {"lr": 0.001, "half": 0.5, "whole": 3, "day": "2020-01-01", "limit": "2h", "version": 1, "big": 1.5e10}
    assert read_spec(str(path)) == wanted


def test_numbers_of_other_bases_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("a: 2:30\nb: 010\nc: 0x10\nd: 0b11\ne: 1_000\nf: -7\ng: 0\nh: 1e3\ni: +5\n")
    texts = {"a": "2:30", "b": "010", "c": "0x10", "d": "0b11", "e": "1_000"}
    assert read_spec(str(path)) == texts | {"f": -7, "g": 0, "h": 1000.0, "i": 5}
    path.write_text("train: {dataset: digits}\ntime_limit: 2:30\n")
    refused = run("submit", str(path), "--dry-run")
    assert (refused.exit_code, "time_limit" in refused.stderr) == (2, True)


def test_an_error_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise InvalidInput("a", "x\x9b2J\u202ey\r\n\x1b]0;t\x07")

    with pytest.raises(SystemExit) as left:
        Commands.leave(fail)
    assert left.value.code == 2
    assert capsys.readouterr().err == "Error: a: x\\x9b2J\\u202ey\\x0d\\x0a\\x1b]0;t\\x07\n"


def test_assignments_reach_into_mappings() -> None:
    fields: dict[str, object] = {}
    assign(fields, ("a.b=1e-3", "a.c=[flip, translate(4)]", "name=x=y", "ok=true", "none=null", "nan=NaN"))
    assert fields == {
        "a": {"b": 0.001, "c": ["flip", "translate(4)"]},
        "name": "x=y",
        "ok": True,
        "none": None,
        "nan": "NaN",
    }
    with pytest.raises(InvalidInput, match="is a value"):
        assign(fields, ("name.x=1",))


def test_no_terminal_obeys_a_users_text() -> None:
    hostile = "a\x1b]0;t\x07\r\n\u202eb\u200bc\x9b2J\U000e0041\ud800"
    shown = safe(hostile)
    assert shown.isascii()
    assert shown.isprintable()
    assert safe("Zoë 猫 ▓") == "Zoë 猫 ▓"
    assert safe_lines("a\r\nb\tc\rd\x1b[1;31mred\x1b[0m\x1b[2J") == "a\nb\tc\ndred\\x1b[2J"


def test_a_job_that_is_too_far_away_is_told_whom_it_surely_stands_behind() -> None:
    ahead = [{"team": "nlp", "jobs": 300}, {"team": "vision", "jobs": 12}]
    told = {"sentence": "needs 1 GPU", "code": "gpus", "position": None, "ahead": ahead, "further": True}
    assert behind_whom(told) == "more than 312 jobs: 300 of team nlp, 12 of team vision"
    assert announced(told) == "behind more than 312 jobs: 300 of team nlp, 12 of team vision: needs 1 GPU"
    assert behind_whom(told | {"ahead": []}) == ""
    assert announced(told | {"ahead": []}) == "needs 1 GPU"
    assert behind_whom(told | {"further": False}) == "312 jobs: 300 of team nlp, 12 of team vision"


def test_amounts_read_like_speech() -> None:
    assert [amount(n) for n in (0, 999, 1500, 4 * 10**9)] == ["0 B", "999 B", "1.5 kB", "4.0 GB"]
    assert [duration(s) for s in (None, 5, 89, 720, 11400, 200_000)] == ["", "5s", "89s", "12m", "3h10m", "2d"]


def test_services_name_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run("api")
    assert result.exit_code == 1
    assert 'pip install "stoker[api]"' in result.stderr
