"""What would let a waiting job start sooner, in sentences."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stoker.jobs.fit import Demand, Node, Unit, fits
from stoker.jobs.helps import helps
from stoker.jobs.situation import NEW, Candidate

GB = 10**9


def node(*free: bool, model: str = "A100", memory: int = 40, cpus: int = 16) -> Node:
    """A worker; each GPU is free or not."""
    units = tuple(Unit(place, model, memory * GB, 1000 if idle else 0, 1000) for place, idle in enumerate(free))
    return Node(1, "gpu-1", "cpu", 16_000, cpus * 1000, 64 * GB, 32 * GB, 16, 16, units)


def job(number: int = 7, user: int = 1, priority: int = 1, **fields: Any) -> Candidate:
    """A job that waits."""
    demand = replace(Demand(1000, GB, device="gpu", gpus=1), **fields)
    return Candidate(number, priority, demand, team=1, user=user)


def test_fewer_gpus_the_most_that_are_free() -> None:
    assert helps(job(gpus=4), [node(True, True, False, False)], []) == ["with 2 GPUs it would start now"]
    assert helps(job(gpus=2), [node(True, False)], []) == ["with 1 GPU it would start now"]


def test_another_type_or_less_memory_of_a_gpu() -> None:
    assert helps(job(gpu_types=("H100",)), [node(True)], []) == ["on any type of GPU it would start now"]
    assert helps(job(gpu_memory_bytes=80 * GB), [node(True)], []) == ["with 40 GB of GPU memory it would start now"]


def test_fewer_cpus_and_less_memory() -> None:
    assert helps(job(cpus_milli=12_000), [node(True, cpus=8)], []) == ["with 8 CPUs it would start now"]
    assert helps(job(memory_bytes=60 * GB), [node(True)], []) == ["with 32 GB of memory it would start now"]


def test_only_own_jobs_of_the_same_class_can_be_passed() -> None:
    ahead = [job(1), job(2), job(3, user=2), job(4, priority=2)]
    assert helps(job(), [node(False)], ahead) == ["2 of your own jobs go before it: `stoker first 7` changes that"]
    assert helps(job(), [node(False)], ahead[:1]) == [
        "one of your own jobs goes before it: `stoker first 7` changes that"
    ]


def test_what_holds_a_place_or_is_behind_already_in_the_own_order_is_not_passed() -> None:
    assert helps(job(), [node(False)], [job(1), job(2)], held=[1]) == [
        "one of your own jobs goes before it: `stoker first 7` changes that"
    ]
    assert helps(replace(job(), own_order=1), [node(False)], [job(1), job(2)]) == []


def test_nobody_counts_jobs_that_were_not_looked_at() -> None:
    ahead = [job(1), job(2)]
    assert helps(job(), [node(False)], ahead, further=True) == [
        "others of your own jobs go before it: `stoker first 7` changes that"
    ]


def test_a_job_that_is_only_thought_of_has_no_number_to_name() -> None:
    assert helps(job(NEW), [node(False)], [job(1)]) == [
        "one of your own jobs goes before it: `stoker first` changes that"
    ]


def test_a_job_that_fits_waits_for_something_else_and_less_would_not_help() -> None:
    assert helps(job(gpus=2), [node(True, True)], []) == []


def test_where_nothing_is_free_nothing_is_promised() -> None:
    assert helps(job(gpus=4, gpu_types=("H100",), cpus_milli=12_000), [node(False, False)], []) == []


@given(st.integers(2, 8), st.lists(st.booleans(), min_size=1, max_size=8))
def test_what_is_said_of_gpus_is_so(wanted: int, free: list[bool]) -> None:
    said = helps(job(gpus=wanted), [node(*free)], [])
    idle = sum(free)
    if 0 < idle < wanted:
        assert said == [f"with {idle} GPU{'s' if idle > 1 else ''} it would start now"]
        assert fits(job(gpus=idle).demand, node(*free), "gpu")
    else:
        assert said == []
