"""What would let a waiting job start sooner: the same predicates, asked about jobs that want a little less. Pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from stoker.jobs.fit import Demand, Node, devices_for, fits
from stoker.jobs.situation import NEW, Candidate


def helps(
    job: Candidate,
    nodes: Sequence[Node],
    ahead: Sequence[Candidate],
    *,
    held: Collection[int] = (),
    further: bool = False,
) -> list[str]:
    """Sentences, the most useful first.

    Args:
        job: That waits.
        nodes: The workers as they are once all that starts now has started.
        ahead: The jobs that start before it.
        held: Jobs for which a place is kept: one's own order changes nothing about these.
        further: Others do so, too.
    """
    found: list[str] = []
    seen: set[str] = set()
    fits_now = _fits(job.demand, nodes)  # and waits for something else, such as its team's limit
    for kind, demand, words in () if fits_now else _smaller(job.demand, nodes):  # of each kind what gives up least
        if kind not in seen and _fits(demand, nodes):
            seen.add(kind)
            found.append(f"{words} it would start now")
    own = [
        one
        for one in ahead
        if one.user == job.user
        and one.priority == job.priority
        and one.number not in held
        and one.own_order >= job.own_order  # else it goes before that one already
    ]
    if own:
        jobs = "one of your own jobs goes" if len(own) == 1 else f"{len(own)} of your own jobs go"
        jobs = "others of your own jobs go" if further else jobs
        first = "stoker first" if job.number == NEW else f"stoker first {job.number}"
        found.append(f"{jobs} before it: `{first}` changes that")
    return found


def _fits(demand: Demand, nodes: Sequence[Node]) -> bool:
    return any(fits(demand, node, device) for device in devices_for(demand, nodes) for node in nodes)


def _smaller(demand: Demand, nodes: Sequence[Node]) -> Iterator[tuple[str, Demand, str]]:
    """Demands that ask for less of one thing."""
    if demand.device != "cpu":
        if demand.gpu_types:
            yield "gpu_types", replace(demand, gpu_types=()), "on any type of GPU"
        for count in range(demand.gpus - 1, 0, -1):
            yield "gpus", replace(demand, gpus=count), f"with {count} GPU{'s' if count > 1 else ''}"
        for memory in sorted({unit.memory_bytes for node in nodes for unit in node.units}, reverse=True):
            if memory < demand.gpu_memory_bytes:
                yield (
                    "gpu_memory_bytes",
                    replace(demand, gpu_memory_bytes=memory),
                    f"with {memory / 1e9:g} GB of GPU memory",
                )
    for cpus in sorted({node.cpus_free_milli // 1000 for node in nodes}, reverse=True):
        if 0 < cpus * 1000 < demand.cpus_milli:
            yield "cpus_milli", replace(demand, cpus_milli=cpus * 1000), f"with {cpus} CPU{'s' if cpus > 1 else ''}"
    for memory in sorted({node.memory_free_bytes // 10**9 for node in nodes}, reverse=True):
        if 0 < memory * 10**9 < demand.memory_bytes:
            yield "memory_bytes", replace(demand, memory_bytes=memory * 10**9), f"with {memory} GB of memory"
