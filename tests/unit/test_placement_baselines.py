"""The rules that placement is compared with do what their sources say."""

import math

import pytest

from stoker.jobs.baselines import Anywhere, BestFit, Fragmentation
from stoker.jobs.fit import Demand, Node, Unit
from stoker.jobs.mix import Mix, Shape
from stoker.jobs.placement import Board
from stoker.jobs.views import View

MIX = Mix.of({Shape(4000, 1): 50.0, Shape(8000, 1, 470): 30.0, Shape(2000, 4): 5.0, Shape(1000, 0): 20.0})


def node(number: int, *levels: int, cpus: int = 16) -> Node:
    """A worker with a device for each of ``levels``."""
    units = tuple(Unit(100 * number + place, "A", 0, level, 1000) for place, level in enumerate(levels))
    return Node(number, "n", "x", 64_000, cpus * 1000, 10, 10, 9, 9, units)


def fragments(levels: list[int], cpus_milli: int) -> float:
    """The GPU capacity that a typical job cannot use: equation 1 and 2 of the paper."""
    lost = 0.0
    for shape, share in MIX.shares.items():
        usable = [level for level in levels if level >= shape.gpu_milli]
        runs = shape.gpus and len(usable) >= shape.gpus and cpus_milli >= shape.cpus_milli
        lost += share * (sum(levels) - (sum(usable) if runs else 0))
    return lost


@pytest.mark.parametrize("levels", [(1000, 1000, 1000, 1000), (500, 1000, 160), (470,)])
@pytest.mark.parametrize("cpus", [1, 5, 9, 16])
def test_fgd_is_the_papers(levels: tuple[int, ...], cpus: int) -> None:
    demand = Demand(1000, 1, "gpu", gpu_milli=320)
    score, way = Fragmentation(MIX).rate(demand, View.of(node(0, *levels, cpus=cpus), {}), "gpu")
    scores = {}
    for level in {level for level in levels if level >= 320}:
        left = list(levels)
        left[left.index(level)] -= 320
        growth = fragments(left, cpus * 1000 - 1000) - fragments(list(levels), cpus * 1000)
        scores[level] = math.floor(100 / (1 + math.exp(growth / 1000)))
    assert score == max(scores.values())
    assert scores[way[0][1]] == score


def test_best_fit_takes_the_fullest_worker_and_its_tightest_device() -> None:
    nodes = [node(0, 1000, 1000), node(1, 1000, 400, 500), node(2, 1000, 1000, 1000)]
    spot = Board(nodes, BestFit(nodes)).choose(Demand(1000, 1, "gpu", gpu_milli=300))
    assert spot is not None
    assert (spot.node, spot.units) == (1, (101,))


def test_anywhere_is_anywhere_that_fits() -> None:
    policy = Anywhere([node(0, 200), node(1, 1000), node(2, 1000, cpus=0), node(3, 1000)])
    demand = Demand(1000, 1, "gpu", gpu_milli=300)
    found = {spot.node for spot in (policy.choose(demand) for _ in range(60)) if spot}
    assert found == {1, 3}
    assert policy.choose(Demand(1000, 1, "gpu", gpus=2)) is None
