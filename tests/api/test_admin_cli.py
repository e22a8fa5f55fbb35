"""Administration on the command line: what is printed, and the exit codes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stoker.client.cli import cli
from tests.support.server import Server, serve

Run = Callable[..., Result]


@pytest.fixture
def server(database_url: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real API whose one user is an administrator, known to the command line by its environment."""
    with serve(database_url, home) as running:
        for name, value in (("URL", running.url), ("TOKEN", running.token), ("HOME", str(home))):
            monkeypatch.setenv(f"STOKER_{name}", value)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        running.promote()
        yield running


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, arguments)


def test_a_team_is_set_up_and_taken_down(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("team", "add", "nlp", "--weight", "2").stdout == "team nlp added, weight 2\n"
    assert run("team", "set", "nlp", "--weight", "3").stdout == "team nlp has weight 3\n"
    assert run("user", "add", "eve", "--team", "nlp").stdout == "eve added (team nlp, member)\n"
    made = run("token", "add", "laptop", "--user", "eve", "--expires", "1d")
    assert made.stdout.startswith("stk_")
    assert "a token of eve" in made.stderr
    assert made.stdout.strip() not in run("token", "ls", "--user", "eve").output
    (kept,) = json.loads(run("token", "ls", "--user", "eve", "--json").stdout)["items"]
    assert (kept["name"], bool(kept["expires_at"])) == ("laptop", True)
    assert run("quota", "set", "nlp", "--cpus", "2", "--cpus-limit", "3").stdout == (
        "team nlp in pool default: 0 GPUs and 2 CPUs guaranteed, at most 3 CPUs\n"
    )
    assert run("quota", "set", "nlp", "--cpus-limit", "none").stdout.endswith("2 CPUs guaranteed\n")
    assert [line.split() for line in run("quota", "ls").stdout.splitlines()] == [
        ["TEAM", "POOL", "GPUS", "CPUS"],
        ["nlp", "default", "0", "2"],
    ]
    assert run("pool", "set", "default", "--fractions").stdout == "jobs in pool default may ask for a part of a GPU\n"
    (pool,) = json.loads(run("pool", "ls", "--json").stdout)["items"]
    assert (pool["name"], pool["fractions"]) == ("default", True)
    assert run("pool", "ls").stdout.splitlines()[1].split() == ["default", str(pool["workers"]), "yes"]
    assert "may not ask" in run("pool", "set", "default", "--no-fractions").stdout
    assert "eve" in run("user", "ls").stdout
    assert run("user", "set", "eve", "--role", "admin").stdout == "eve (team nlp, admin)\n"
    assert run("user", "rm", "eve").stdout == "eve may sign in no more\n"
    assert run("token", "rm", str(kept["id"]), "--user", "eve").exit_code == 0
    assert run("quota", "rm", "nlp").exit_code == 0
    assert [team["name"] for team in json.loads(run("team", "ls", "--json").stdout)["items"]] == ["vision", "nlp"]
    assert run("team", "add", "short-lived").exit_code == 0
    assert run("team", "rm", "short-lived").exit_code == 0


MISTAKES = [
    (("team", "set", "vision", "--weight", "0"), 2, "weight: 0 is out of range"),
    (("team", "set", "vision", "--weight", "nan"), 2, "not a finite number"),
    (("team", "set", "visio", "--weight", "1"), 4, "known: vision"),
    (("team", "rm", "vision"), 1, "has users, jobs or data"),
    (("user", "add", "Bad Name", "--team", "vision"), 2, "is not a name"),
    (("user", "rm", "ada"), 1, "ada is the last administrator"),
    (("quota", "set", "vision"), 2, "nothing is to change"),
    (("quota", "set", "vision", "--gpus", "1"), 2, "it has 0 GPUs, of which 0 are guaranteed to no other team"),
    (("quota", "set", "vision", "--cpus", "99"), 2, "99 is more than pool default can guarantee"),
    (("quota", "set", "vision", "--cpus-limit", "many"), 2, "'many' is not a number"),
    (("quota", "set", "vision", "--pool", "x", "--cpus", "1"), 4, "no pool x; known: default"),
    (("pool", "set", "default"), 2, "nothing is to change; give --fractions or --no-fractions"),
    (("pool", "set", "x", "--fractions"), 4, "no pool x; known: default"),
    (("usage", "--since", "yesterday"), 2, "since: 'yesterday' is not a duration"),
    (("token", "rm", "99"), 4, "no token 99"),
]


def test_mistakes_are_told_in_one_line(server: Server) -> None:
    for arguments, code, words in MISTAKES:
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (code, ""), arguments
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_usage_is_a_table(server: Server) -> None:
    server.queue.running(server.incarnation)
    assert run("usage").stdout.splitlines()[0].split() == [
        "TEAM",
        "JOBS",
        "GPU",
        "HOURS",
        "CPU",
        "HOURS",
        "SHARE",
        "ENTITLED",
        "TO",
    ]
    assert "ada" in run("usage", "--by", "user", "--since", "1h").stdout
    assert json.loads(run("usage", "--json").stdout)["items"][0]["jobs"] == 1
