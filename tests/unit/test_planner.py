"""The planner is pure, so its promises are checked on fleets and queues that nobody thought of."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.fit import Demand, Node, Unit, misfit
from stoker.jobs.placement import LeastLoss
from stoker.jobs.planner import plan
from stoker.jobs.reasons import NEXT, NO_WORKER
from stoker.jobs.situation import Candidate, Situation
from stoker.jobs.waits import never, why_not

GB = 10**9
units = st.builds(
    Unit,
    st.integers(0, 10**6),
    st.sampled_from(["A", "B"]),
    st.sampled_from([16 * GB, 80 * GB]),
    st.sampled_from([0, 350, 1000]),
    st.sampled_from([1000, 1000, 2000]),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[Node]:
    """Up to four workers, partly used."""
    nodes = []
    for number in range(draw(st.integers(0, 4))):
        cpus, memory, limit = draw(st.integers(1, 16)) * 1000, draw(st.integers(1, 64)) * GB, draw(st.integers(1, 4))
        found = draw(st.lists(units, max_size=4))
        nodes.append(
            Node(
                number,
                f"node-{number}",
                draw(st.sampled_from(["x", "y"])),
                cpus,
                draw(st.integers(0, cpus)),
                memory,
                draw(st.integers(0, memory)),
                limit,
                draw(st.integers(0, limit)),
                tuple(dataclasses.replace(unit, id=number * 10 + place) for place, unit in enumerate(found)),
            )
        )
    return nodes


demands = st.builds(
    Demand,
    st.sampled_from([1, 1000, 4000]),
    st.sampled_from([GB, 8 * GB]),
    st.sampled_from(["auto", "cpu", "gpu"]),
    st.integers(1, 3),
    st.sampled_from([0, 40 * GB]),
    st.sampled_from([(), ("A",), ("B", "A")]),
    st.sampled_from([None, None, "x", "A + x"]),
    st.sampled_from([1000, 1000, 300]),
)
queues = st.lists(st.tuples(st.integers(0, 3), demands), max_size=12).map(
    lambda found: [Candidate(number, *rest) for number, rest in enumerate(found, 1)]
)


@given(queues, fleets())
def test_what_is_placed_never_exceeds_what_is_free(queue: list[Candidate], fleet: list[Node]) -> None:
    placements = plan(Situation(0.0, queue, fleet), LeastLoss()).placements
    for node in fleet:
        here = [placement for placement in placements if placement.spot.node == node.id]
        assert sum(placement.demand.cpus_milli for placement in here) <= node.cpus_free_milli
        assert sum(placement.demand.memory_bytes for placement in here) <= node.memory_free_bytes
        assert len(here) <= node.attempts_free
        for unit in node.units:
            takers = [placement for placement in here if unit.id in placement.spot.units]
            assert sum(placement.demand.takes(unit.capacity_milli) for placement in takers) <= unit.free_milli
        for placement in here:
            assert len(set(placement.spot.units)) == len(placement.spot.units)
            assert {unit.id for unit in node.units} >= set(placement.spot.units)


@given(queues, fleets())
def test_a_job_runs_only_on_what_it_asked_for(queue: list[Candidate], fleet: list[Node]) -> None:
    nodes = {node.id: node for node in fleet}
    for placement in plan(Situation(0.0, queue, fleet), LeastLoss()).placements:
        demand, spot = placement.demand, placement.spot
        assert misfit(demand, nodes[spot.node], spot.device) is None
        assert demand.device in {"auto", spot.device}  # a job for a GPU never falls back
        chosen = [unit for unit in nodes[spot.node].units if unit.id in spot.units]
        assert len(chosen) == (demand.gpus if spot.device == "gpu" else 0)
        assert all(unit.memory_bytes >= demand.gpu_memory_bytes for unit in chosen)
        assert all(demand.suits(unit.model, unit.memory_bytes) for unit in chosen)


@given(queues, fleets())
def test_every_job_is_placed_or_has_one_reason_that_still_holds(queue: list[Candidate], fleet: list[Node]) -> None:
    made = plan(Situation(0.0, queue, fleet), LeastLoss())
    placed = {placement.number for placement in made.placements}
    assert placed.isdisjoint(made.reasons)
    assert placed | set(made.reasons) == {job.number for job in queue}
    left = {node.id: node for node in fleet}
    for placement in made.placements:
        left[placement.spot.node] = left[placement.spot.node].after(placement.demand, placement.spot)
    promised = bool(made.reservations)
    for job in queue:
        if job.number in made.reasons and not promised:
            assert why_not(job.demand, list(left.values())) is not NEXT  # nothing that fits was left waiting
        assert job.number in placed or made.reasons[job.number] is not NEXT


@given(queues, fleets())
def test_of_two_equal_demands_the_first_in_turn_is_placed_first(queue: list[Candidate], fleet: list[Node]) -> None:
    placed = {placement.number for placement in plan(Situation(0.0, queue, fleet), LeastLoss()).placements}
    by_demand: dict[Demand, list[bool]] = {}
    for job in sorted(queue, key=lambda job: (-job.priority, job.number)):
        by_demand.setdefault(job.demand, []).append(job.number in placed)
    for found in by_demand.values():
        assert found == sorted(found, reverse=True)


@given(queues, fleets())
def test_the_order_in_which_things_are_given_changes_nothing(queue: list[Candidate], fleet: list[Node]) -> None:
    turned = plan(Situation(0.0, queue[::-1], fleet[::-1]), LeastLoss())
    assert plan(Situation(0.0, queue, fleet), LeastLoss()) == turned


@given(demands, fleets())
def test_what_can_never_run_is_told_from_what_has_to_wait(demand: Demand, fleet: list[Node]) -> None:
    reason = never(demand, fleet)
    fits_empty = any(
        misfit(demand, node.emptied(), device) is None
        for node in fleet
        for device in ("cpu", "gpu")
        if demand.device in {"auto", device}
    )
    if not fleet:
        assert reason is None
    elif not fits_empty:
        assert reason is not None
    assert why_not(demand, []) == NO_WORKER
