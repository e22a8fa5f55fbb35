"""`stoker simulate`: how full a fleet would get with the dispatcher's own placement."""

from dataclasses import asdict
from pathlib import Path

import click

from stoker.client.screen import as_json, print_json
from stoker.errors import InvalidInput
from stoker.jobs.simulation import POLICIES, Outcome, arrivals, capacity, make_policy, simulate
from stoker.jobs.trace import read_nodes, read_tasks

CSV_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command()
@click.option("--nodes", "nodes_file", required=True, type=CSV_FILE, help="CSV: cpu_milli memory_mib gpu model.")
@click.option(
    "--tasks", "tasks_file", required=True, type=CSV_FILE, help="CSV: cpu_milli memory_mib num_gpu gpu_milli gpu_spec."
)
@click.option("--load", default=1.3, show_default=True, help="GPUs that the tasks ask for, as a share of all.")
@click.option("--seed", default=42, show_default=True, help="Of the order in which the tasks arrive.")
@click.option("--history", type=CSV_FILE, help="Tasks of the past, as a mix of shapes; else it is learned on the way.")
@click.option("--policy", type=click.Choice(POLICIES), default="prices", show_default=True, help="How to place.")
@as_json
def command(
    nodes_file: Path, tasks_file: Path, load: float, seed: int, history: Path | None, policy: str, json_wanted: bool
) -> None:
    """Place tasks on an idle fleet until they asked for LOAD times its GPUs; none leaves.

    Each task is placed when it arrives, or rejected, by the same code that the dispatcher runs.
    """
    if not 0 < load <= 100:
        raise InvalidInput("--load", f"{load} is out of range", "use more than 0, at most 100")
    nodes = read_nodes(nodes_file)
    tasks = read_tasks(tasks_file, nodes)
    known = read_tasks(history) if history else []
    order = arrivals(tasks, capacity(nodes), load, seed)
    outcome = simulate(nodes, order, make_policy(policy, nodes, known))
    if json_wanted:
        print_json(asdict(outcome) | {"policy": policy, "load": load, "seed": seed})
    else:
        _print(outcome, len(nodes))


def _print(outcome: Outcome, nodes: int) -> None:
    click.echo(
        f"{outcome.gpu_allocated_percent:.2f} % of the GPUs of {nodes} nodes allocated; "
        f"{outcome.rejected} of {outcome.arrived} tasks rejected; "
        f"{1000 * outcome.seconds / max(1, outcome.arrived):.2f} ms a decision"
    )
