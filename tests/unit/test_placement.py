"""Where jobs are placed: always where they fit, the same whatever was remembered, and by the same code everywhere."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.fit import Demand, Node, Spot, Unit, fits, misfit
from stoker.jobs.mix import Arrivals, Mix, Shape, shape_of
from stoker.jobs.placement import Board, LeastLoss
from stoker.jobs.planner import plan
from stoker.jobs.simulation import Learning
from stoker.jobs.situation import Candidate, Situation
from stoker.jobs.worth import Weights, Worth

GB = 10**9


def node(number: int, *levels: int, cpus: int = 8, model: str = "A", memory: int = 16 * GB) -> Node:
    """A worker with plenty of memory and a device for each of ``levels``."""
    units = tuple(Unit(100 * number + place, model, memory, level, 1000) for place, level in enumerate(levels))
    return Node(number, f"node-{number}", "x", 64_000, cpus * 1000, 64 * GB, 64 * GB, 16, 16, units)


def gpu(share: int = 1000, gpus: int = 1, cpus: float = 1, types: tuple[str, ...] = ()) -> Demand:
    """A job for GPUs."""
    return Demand(round(cpus * 1000), GB, "gpu", gpus, gpu_types=types, gpu_milli=share)


def where(demand: Demand, *nodes: Node, seen: dict[Shape, float] | None = None) -> Spot | None:
    """Choose once."""
    return Board(nodes, LeastLoss(Mix.of(seen or {}))).choose(demand)


demands = st.builds(
    gpu,
    st.sampled_from([1000, 1000, 500, 300]),
    st.just(1),
    st.sampled_from([0.5, 1, 4]),
    st.sampled_from([(), ("A",)]),
) | st.builds(gpu, st.just(1000), st.integers(2, 4))
demands |= st.just(Demand(2000, GB, "cpu")) | st.just(Demand(1000, 2 * GB))
levels = st.lists(st.sampled_from([1000, 1000, 700, 200, 0]), max_size=4)
fleets = st.lists(st.tuples(levels, st.integers(0, 12), st.sampled_from(["A", "B"])), min_size=1, max_size=5).map(
    lambda found: [node(number, *free, cpus=cpus, model=model) for number, (free, cpus, model) in enumerate(found)]
)
mixes = st.dictionaries(demands.map(shape_of), st.integers(1, 9), max_size=4).map(Mix.of)


@given(demands, fleets, mixes)
def test_a_job_goes_where_it_fits_and_stays_out_only_where_it_fits_nowhere(
    demand: Demand, fleet: list[Node], mix: Mix
) -> None:
    spot = Board(fleet, LeastLoss(mix)).choose(demand)
    devices = ("cpu", "gpu") if demand.device == "auto" else (demand.device,)
    fitting = {(found.id, device) for found in fleet for device in devices if misfit(demand, found, device) is None}
    if spot is None:
        assert not fitting
    else:
        assert (spot.node, spot.device) in fitting
        after = fleet[spot.node].after(demand, spot)
        assert min([after.cpus_free_milli, after.memory_free_bytes, *(unit.free_milli for unit in after.units)]) >= 0
        assert len(spot.units) == (demand.gpus if spot.device == "gpu" else 0)


@given(demands, fleets)
def test_the_reason_and_the_test_agree(demand: Demand, fleet: list[Node]) -> None:
    for found in fleet:
        for device in ("cpu", "gpu"):
            assert fits(demand, found, device) == (misfit(demand, found, device) is None)


@given(st.lists(st.tuples(demands, st.booleans()), max_size=25), fleets, mixes)
def test_what_is_remembered_changes_no_choice(steps: list[tuple[Demand, bool]], fleet: list[Node], mix: Mix) -> None:
    """Jobs come and leave; a board that saw it all chooses as one that sees the workers for the first time."""
    rule = LeastLoss(mix)
    board = Board(fleet, rule)
    running: list[tuple[Demand, Spot]] = []
    for demand, leaves in steps:
        if leaves and running:
            board.leave(*running.pop(0))
        spot = board.choose(demand)
        assert spot == Board(board.nodes, LeastLoss(mix)).choose(demand)
        if spot is not None:
            board.place(demand, spot)
            running.append((demand, spot))
    for demand, spot in running:
        board.leave(demand, spot)
    assert board.nodes == fleet


@given(st.lists(demands, max_size=20), fleets)
def test_dispatch_and_simulation_decide_alike(asked: list[Demand], fleet: list[Node]) -> None:
    """The planner places a queue in order; the simulation meets the same jobs as arrivals."""
    history = asked[:7]
    queue = [Candidate(number, 1, demand) for number, demand in enumerate(asked)]
    planned = plan(Situation(0.0, queue, fleet), LeastLoss(Arrivals(map(shape_of, history)).mix()))
    policy = Learning(fleet, LeastLoss, history)
    simulated = {}
    for number, demand in enumerate(asked):
        spot = policy.choose(demand)
        if spot is not None:
            policy.place(demand, spot)
            simulated[number] = spot
    assert {placement.number: placement.spot for placement in planned.placements} == simulated


def test_from_nothing_large_gaps_stay_whole() -> None:
    wide, narrow = node(0, 1000, 1000, 1000, 1000), node(1, 0, 0, 0, 1000)
    assert where(gpu(), wide, narrow) == Spot(1, "gpu", (103,))
    assert where(gpu(gpus=2), node(0, *[1000] * 8), node(1, 1000, 1000)) == Spot(1, "gpu", (100, 101))


def test_from_nothing_a_share_goes_to_the_tightest_device() -> None:
    assert where(gpu(300), node(0, 1000, 700, 350), node(1, 1000)) == Spot(0, "gpu", (2,))


def test_jobs_for_cpus_keep_off_gpus_and_fill_the_fullest() -> None:
    job = Demand(1000, GB, "cpu")
    assert where(job, node(0, 1000), node(1, cpus=6), node(2, cpus=4)) == Spot(2, "cpu")
    assert where(job, node(0, 1000), node(1, cpus=0)) == Spot(0, "cpu")


def test_cpus_are_left_to_gpus_that_would_starve() -> None:
    seen = {Shape(4000, 1): 50.0}
    starving, rich = node(0, 1000, 1000, cpus=8), node(1, 1000, 1000, cpus=30)
    assert where(Demand(2000, GB, "cpu"), starving, rich, seen=seen) == Spot(1, "cpu")


def test_a_model_that_others_wait_for_is_left_to_them() -> None:
    seen = {Shape(1000, 1, gpu_types=("B",)): 50.0, Shape(1000, 1): 50.0}
    assert where(gpu(), node(0, 1000, model="B"), node(1, 1000, model="A"), seen=seen) == Spot(1, "gpu", (100,))


def test_the_least_memory_that_will_do() -> None:
    mixed = dataclasses.replace(node(0), units=(Unit(1, "A", 80 * GB, 1000, 1000), Unit(2, "A", 16 * GB, 1000, 1000)))
    assert where(gpu(), mixed) == Spot(0, "gpu", (2,))


def test_a_mix_of_shares_is_cut_by_its_pattern() -> None:
    """320-thousandths jobs fill a device by threes: the third goes to the two, though a tighter gap exists."""
    seen = {Shape(0, 1, 320): 100.0, Shape(0, 1, 500): 100.0}
    pair, gap = node(0, 360), node(1, 500)  # the gap takes a half, the other device only a third
    assert where(gpu(320, cpus=0), pair, gap, seen=seen) == Spot(0, "gpu", (0,))


LEVELS = [(1000,), (1000, 1000, 530), (190, 680, 1000, 1000), (0, 0), ()]


@pytest.mark.parametrize("free", LEVELS)
@pytest.mark.parametrize("cpus", [0, 900, 2500, 7000, 64_000])
def test_worth_is_its_formula(free: tuple[int, ...], cpus: int) -> None:
    weights = Weights(price=0, cover=0.5, slack=1.2, starved=3)
    mix = Mix.of({Shape(1000, 1): 30.0, Shape(6000, 1, 470): 20.0, Shape(8000, 4): 5.0, Shape(2000, 0): 9.0})
    on_gpus = [(shape, share) for shape, share in mix.shares.items() if shape.gpus]
    asked = sum(share * shape.gpus * shape.gpu_milli for shape, share in on_gpus)
    alone = sum(share * shape.gpu_milli for shape, share in on_gpus if shape.gpus == 1) / asked
    cpus_asked = sum(share * shape.cpus_milli for shape, share in on_gpus)
    fed = cpus_asked / (cpus_asked + 2000 * mix.shares[Shape(2000, 0)])
    worth = -3 * alone * fed * max(0.0, sum(free) - cpus * asked / cpus_asked)
    for shape, share in on_gpus:
        room = [level for level in free if level >= shape.gpu_milli]
        if len(room) >= shape.gpus and cpus >= shape.cpus_milli:
            copies = max(1, sum(level // shape.gpu_milli for level in room) // shape.gpus)
            covered = min(1.0, 1.2 * cpus / (shape.cpus_milli * copies)) if shape.cpus_milli else 1.0
            worth += share * sum(room) * (0.5 + 0.5 * covered)
    assert Worth(mix, "A", GB, weights)(tuple(sorted(free)), cpus) == pytest.approx(worth)


def test_what_is_new_outweighs_what_is_old() -> None:
    old, new = Shape(1000, 1), Shape(2000, 2)
    arrivals = Arrivals([old] * 100_000, half_life=50)
    for _ in range(200):
        arrivals.add(new)
    assert arrivals.mix().shares[new] > 0.9
    assert arrivals.mix().distance(Mix.of({new: 1.0})) < 0.1
    assert arrivals.mix().distance(Mix.of({old: 1.0})) > 0.9


def test_a_mix_of_nothing_still_has_shares() -> None:
    assert sum(Mix.of({}).shares.values()) == pytest.approx(1)
    assert sum(Mix.of({Shape(1, 1, milli): 1.0 for milli in range(1, 1000)}).shares.values()) < 1  # the rarest are cut
