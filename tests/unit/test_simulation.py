"""How full a fleet gets: the protocol, the files, and the command."""

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from stoker.client.cli import cli
from stoker.errors import InvalidInput
from stoker.jobs.fit import Demand, Node
from stoker.jobs.simulation import POLICIES, arrivals, asked, capacity, make_policy, simulate
from stoker.jobs.trace import read_nodes, read_tasks

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
TASKS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
SIZES = (1000, 1000, 1000, 810, 470, 320, 230, 160)


@pytest.fixture
def nodes_file(tmp_path: Path) -> Path:
    """Forty workers of three sorts."""
    lines = [f"n{i},{(96000, 64000, 32000)[i % 3]},262144,{(8, 4, 2)[i % 3]},{'GTX'[i % 3]}\n" for i in range(40)]
    return written(tmp_path / "nodes.csv", NODES + "".join(lines))


@pytest.fixture
def tasks_file(tmp_path: Path) -> Path:
    """Two hundred tasks, some for CPUs, some for one model or another."""
    chance = random.Random(7)
    lines = []
    for number in range(200):
        cpus, spec = chance.choice([2000, 8000, 11300]), chance.choice(["", "", "", "G|T"])
        gpus = chance.choice([0, 1, 1, 1, 1, 1, 1, 2])
        milli = 0 if gpus == 0 else 1000 if gpus == 2 else chance.choice(SIZES)
        lines.append(f"t{number},{cpus},8192,{gpus},{milli},{spec if gpus else ''},LS\n")
    return written(tmp_path / "tasks.csv", TASKS + "".join(lines))


def written(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text)
    return path


def run(nodes: list[Node], order: list[Demand], policy: str, history: list[Demand]) -> float:
    """The share of GPUs allocated, in percent."""
    return simulate(nodes, order, make_policy(policy, nodes, history)).gpu_allocated_percent


def test_tasks_arrive_until_they_ask_for_the_load(nodes_file: Path, tasks_file: Path) -> None:
    nodes = read_nodes(nodes_file)
    tasks, milli = read_tasks(tasks_file, nodes), capacity(nodes)
    order = arrivals(tasks, milli, 1.3, seed=1)
    total = sum(map(asked, order))
    assert 1.3 * milli <= total < 1.3 * milli + 2000
    assert order == arrivals(tasks, milli, 1.3, seed=1) != arrivals(tasks, milli, 1.3, seed=2)
    left = list(order)
    for task in tasks:
        left.remove(task)  # each is there at least once
    few = arrivals(tasks, milli, 0.2, seed=1)
    assert 0.2 * milli <= sum(map(asked, few)) < 0.2 * milli + 2000


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_allocated_is_what_was_placed_and_never_too_much(
    policy: str, nodes_file: Path, tasks_file: Path
) -> None:
    nodes = read_nodes(nodes_file)
    tasks = read_tasks(tasks_file, nodes)
    order = arrivals(tasks, capacity(nodes), 1.3, seed=3)
    used = {node.id: node for node in nodes}
    policy_made = make_policy(policy, nodes)
    allocated = 0
    for demand in order:
        spot = policy_made.choose(demand)
        if spot is not None:
            policy_made.place(demand, spot)
            allocated += asked(demand)
            if policy != "fgd":  # which numbers the workers anew
                used[spot.node] = used[spot.node].after(demand, spot)
    for node in used.values():
        assert min([node.cpus_free_milli, node.memory_free_bytes, *(unit.free_milli for unit in node.units)]) >= 0
    if policy != "fgd":
        assert allocated == sum(1000 - unit.free_milli for node in used.values() for unit in node.units)
    assert run(nodes, order, policy, []) == 100 * allocated / capacity(nodes)


def test_prices_fill_the_fleet_better_than_what_they_are_compared_with(nodes_file: Path, tasks_file: Path) -> None:
    nodes = read_nodes(nodes_file)
    tasks = read_tasks(tasks_file, nodes)
    orders = [arrivals(tasks, capacity(nodes), 1.3, seed) for seed in range(4)]
    reached = {policy: sum(run(nodes, order, policy, tasks) for order in orders) / 4 for policy in POLICIES}
    assert reached["prices"] >= reached["fgd"]
    assert reached["fgd"] > reached["random"]
    assert reached["best-fit"] > reached["random"]
    assert sum(run(nodes, order, "prices", []) for order in orders) / 4 > reached["random"]  # learned on the way


def test_models_that_a_task_names(tmp_path: Path) -> None:
    nodes = read_nodes(written(tmp_path / "n.csv", NODES + "a,8000,9000,1,V100M16\nb,8000,9000,1,T4\n"))
    either, neither = TASKS + "x,1,1,1,1000,V100M16|V100M32,\n", TASKS + "x,1,1,1,1000,A10,\n"
    (task,) = read_tasks(written(tmp_path / "t.csv", either), nodes)
    assert task.gpu_types == ("V100M16", "V100M32")
    assert simulate(nodes, [task, task], make_policy("prices", nodes)).rejected == 1
    with pytest.raises(
        InvalidInput, match=r"line 2, column gpu_spec: 'A10' is the model of no node; known: T4, V100M16"
    ):
        read_tasks(written(tmp_path / "t.csv", neither), nodes)
    assert read_tasks(written(tmp_path / "t.csv", neither))  # the past may have had other models


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; give it a header with cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec"),
        (TASKS, "has a header and nothing else; give it at least one line"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_spec\n", "line 1: misses the column gpu_milli; found: name, cpu"),
        ("cpu_milli," + TASKS, "line 1: has the column cpu_milli twice; keep one of them"),
        (
            TASKS + "a,1,1,1,1000,,\nb,x2,1,1,1000,,\n",
            "line 3, column cpu_milli: 'x2' is not a whole number; write one",
        ),
        (TASKS + "a,1.5,1,1,1000,,\n", "line 2, column cpu_milli: '1.5' is not a whole number"),
        (TASKS + "a,٣,1,1,1000,,\n", "column cpu_milli: '٣' is not a whole number"),
        (TASKS + "a,1,-1,1,1000,,\n", "line 2, column memory_mib: '-1' is out of range; use 0 to 1000000000"),
        (TASKS + "a,1,1,1,1001,,\n", "line 2, column gpu_milli: '1001' is out of range; use 1 to 1000"),
        (TASKS + "a,1,1,1,,,\n", "line 2, column gpu_milli: '' is not a whole number"),
        (TASKS + "a,1,1,2,300,,\n", "column gpu_milli: '300' of each of 2 GPUs cannot be asked for"),
        (TASKS + "a,1,1,1\n", "line 2: has 4 cells, the header has 7; give each line one cell a column"),
        (TASKS + 'a,"1,1,1,1,1\n', "is no CSV: unexpected end of data"),
        (TASKS + "a,1,1,1," + "9" * 5000 + ",,\n", "is not a whole number"),
        (TASKS + "a,1,1,1,1000,\udcff,\n", "is not text in UTF-8; save it as CSV in UTF-8"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path, nodes_file: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    done = CliRunner().invoke(cli, ["simulate", "--nodes", str(nodes_file), "--tasks", str(path)])
    assert done.exit_code == 2
    assert f"Error: {path}" in done.stderr
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("nodes", "tasks", "sentence"),
    [
        ("a,1,1,0,\n", "a,1,1,1,1000,,\n", "nodes: none has a GPU"),
        ("a,1,1,1,A\n", "a,1,1,0,0,,\n", "tasks: none asks for a GPU"),
        ("a,1,1,1,\n", "a,1,1,1,1000,,\n", "column model: '' names no model"),
        ("a,1,1,-2,A\n", "a,1,1,1,1000,,\n", "line 2, column gpu: '-2' is out of range; use 0 to 1024"),
    ],
)
def test_a_fleet_without_gpus_or_tasks_without_need_of_them(
    nodes: str, tasks: str, sentence: str, tmp_path: Path
) -> None:
    files = ["--nodes", str(written(tmp_path / "n.csv", NODES + nodes))]
    done = CliRunner().invoke(cli, ["simulate", *files, "--tasks", str(written(tmp_path / "t.csv", TASKS + tasks))])
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_the_command_prints_one_document(nodes_file: Path, tasks_file: Path) -> None:
    files = ["simulate", "--nodes", str(nodes_file), "--tasks", str(tasks_file)]
    done = CliRunner().invoke(cli, [*files, "--history", str(tasks_file), "--load", "1.2", "--seed", "5", "--json"])
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    nodes = read_nodes(nodes_file)
    tasks = read_tasks(tasks_file, nodes)
    order = arrivals(tasks, capacity(nodes), 1.2, 5)
    assert shown["gpu_allocated_percent"] == run(nodes, order, "prices", tasks)
    assert (shown["arrived"], shown["policy"], shown["load"], shown["seed"]) == (len(order), "prices", 1.2, 5)
    assert 0 < shown["rejected"] < shown["arrived"]
    assert shown["seconds"] > 0
    assert "% of the GPUs of 40 nodes" in CliRunner().invoke(cli, [*files, "--policy", "random"]).stdout


@pytest.mark.parametrize("options", [["--load", "0"], ["--load", "nan"], ["--policy", "magic"], ["--seed", "x"], []])
def test_wrong_options_are_usage_errors(options: list[str], nodes_file: Path, tmp_path: Path) -> None:
    tasks = str(nodes_file) if options else str(tmp_path / "missing.csv")
    done = CliRunner().invoke(cli, ["simulate", "--nodes", str(nodes_file), "--tasks", tasks, *options])
    assert done.exit_code == 2
    assert done.stdout == ""
