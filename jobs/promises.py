"""Reservations while a plan is made: what is held for whom, and who may pass meanwhile. Pure."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from stoker.jobs.fit import Demand, Node, Spot, fits
from stoker.jobs.openings import Hold, Opening, barred, can_start, hold_for, opening
from stoker.jobs.placement import Board
from stoker.jobs.situation import Candidate, Reservation, Running, Situation


@dataclass(slots=True)
class Promise:
    """A reservation that holds in this plan."""

    job: Candidate
    reservation: Reservation
    leavers: tuple[Running, ...]  # who has to leave first
    starts_at: float  # as it looks now; infinite: nobody can tell
    hold: Hold


class Promises:
    """All reservations of a plan, beside the board on which their holds lie."""

    def __init__(self, situation: Situation, board: Board) -> None:
        self._situation, self._board = situation, board
        self._here: dict[int, list[Running]] | None = None
        self._staying: dict[int, list[Running]] = {}
        self._ends: dict[int, float] = {}
        self.kept: dict[int, Promise] = {}  # by job
        self.unheld: list[Reservation] = []  # that stay, though another job took their place for now
        self._promised: dict[int, set[int]] = defaultdict(set)  # devices, by worker
        self._leaving: set[int] = set()  # jobs whose end is counted on by somebody

    def here(self, node: int) -> list[Running]:
        """The jobs on a worker."""
        if self._here is None:
            self._here = {}
            for running in self._situation.running:
                self._here.setdefault(running.spot.node, []).append(running)
        return self._here.get(node, [])

    def ends_at(self, running: Running) -> float:
        """When a job is expected to end; infinite: nobody can tell."""
        if running.number not in self._ends:
            left = self._situation.estimates.left(running, self._situation.now)
            self._ends[running.number] = math.inf if left is None else self._situation.now + left.middle
        return self._ends[running.number]

    def free_of(self, node: Node) -> tuple[Node, list[Running]]:
        """A worker as one more reservation may count on it, and the jobs there whose end nobody counts on yet."""
        return barred(node, self._promised.get(node.id, ())), self.staying(node.id)

    def staying(self, node: int) -> list[Running]:
        """The jobs on a worker whose end nobody counts on yet; the same list until that changes."""
        if node not in self._staying:
            here = self.here(node)
            self._staying[node] = [one for one in here if one.number not in self._leaving and one.leaves_for is None]
        return self._staying[node]

    def anybody_stays(self) -> bool:
        """Whether there is a job on any worker whose end nobody counts on yet."""
        return any(self.staying(node.id) for node in self._board.nodes)

    def soonest(self, job: Candidate, nodes: Iterable[Node]) -> Opening | None:
        """The worker on which a job could start first if nothing passed it."""
        best: tuple[float, int, int] | None = None
        found: Opening | None = None
        for node in nodes:
            work, here = self.free_of(node)
            leaving = sorted(here, key=lambda one: (self.ends_at(one), one.number))
            for device in self._board.devices(job.demand):
                place = opening(job.demand, device, work, leaving)
                if place is not None:
                    key = (self._start(place.leavers), len(place.leavers), node.id)
                    if best is None or key < best:
                        best, found = key, place
        return found

    def _start(self, leavers: Collection[Running]) -> float:
        return max([self._situation.now, *map(self.ends_at, leavers)])

    def make(self, job: Candidate, place: Opening, hold_seconds: float | None = None) -> None:
        """Promise a place; with ``hold_seconds`` its leavers are asked to go, and the promise lapses after that."""
        now, starts = self._situation.now, self._start(place.leavers)
        if hold_seconds is not None:
            starts = now
        made = Reservation(
            job.number,
            place.spot,
            made_at=now,
            starts_at=None if math.isinf(starts) else starts,
            expires_at=None if hold_seconds is None else now + hold_seconds,
        )
        self._keep(job, made, place.leavers, starts)

    def _keep(self, job: Candidate, reservation: Reservation, leavers: tuple[Running, ...], starts: float) -> None:
        node = self._board.node(reservation.spot.node)
        assert node is not None  # noqa: S101 - the caller found it on the board
        hold = hold_for(job.demand, reservation.spot, node, leavers)
        self._board.update(hold.taken(node))
        self._promised[node.id].update(reservation.spot.units)
        self._leaving.update(one.number for one in leavers)
        self._staying.pop(node.id, None)
        self.kept[job.number] = Promise(job, reservation, leavers, starts, hold)

    def renew(self, job: Candidate, reservation: Reservation) -> None:
        """Hold a place again that was promised in an earlier plan, where that still can be done."""
        node = self._board.node(reservation.spot.node)
        if node is None:
            return
        if not self._promised[node.id].isdisjoint(reservation.spot.units):
            self.unheld.append(reservation)
            return
        work, here = self.free_of(node)
        if reservation.expires_at is not None:
            leaving = [one for one in self.here(node.id) if one.leaves_for == job.number]
            if leaving:
                self._keep(job, reservation, tuple(leaving), self._situation.now)
            return
        others = {unit.id for unit in work.units} - set(reservation.spot.units)
        leaving = sorted(here, key=lambda one: (self.ends_at(one), one.number))
        bounded = barred(work, others) if reservation.spot.units else work
        place = opening(job.demand, reservation.spot.device, bounded, leaving)
        if place is None:
            self.unheld.append(reservation)
            return
        starts = self._start(place.leavers)
        if reservation.starts_at is None and not math.isinf(starts):
            reservation = replace(reservation, starts_at=starts)
        self._keep(job, reservation, place.leavers, starts)

    def ready(self, job: Candidate, reservation: Reservation) -> bool:
        """Whether the holder can start at its place now."""
        node = self._board.node(reservation.spot.node)
        return node is not None and can_start(job.demand, reservation.spot, node)

    def pass_by(self, job: Candidate, device: str, pools: Collection[str] | None) -> Spot | None:
        """A place that is held for another job, where this one would end before that can start; None: none.

        Once a start has slipped nothing passes any more.
        """
        roomy = self._with_room(job.demand, device, pools)
        length = self._situation.estimates.of(job, device) if roomy else None
        for promise, node, spot in roomy if length else ():
            if length and self._in_time(promise, length.ninety):
                self._squeeze(promise, node, job.demand, spot)
                return spot
        return None

    def may_pass(self, demand: Demand, device: str, pools: Collection[str] | None) -> bool:
        """Whether a job that is short enough could run on what is held for another."""
        return bool(self._with_room(demand, device, pools))

    def _with_room(
        self, demand: Demand, device: str, pools: Collection[str] | None
    ) -> list[tuple[Promise, Node, Spot]]:
        found = []
        for promise in self.kept.values():
            node = self._board.node(promise.reservation.spot.node)
            if node is None or (pools is not None and node.pool not in pools) or not self._in_time(promise, 0.0):
                continue
            spot = _place_in(demand, device, promise.hold.returned(node))
            if spot is not None:
                found.append((promise, node, spot))
        return found

    def _in_time(self, promise: Promise, seconds: float) -> bool:
        promised, slip = promise.reservation.starts_at, self._situation.policy.slip_seconds
        if promise.reservation.expires_at is not None or promised is None or math.isinf(promise.starts_at):
            return False
        slipped = max(promise.starts_at, self._situation.now) - promised > slip
        return not slipped and self._situation.now + seconds <= promise.starts_at

    def _squeeze(self, promise: Promise, node: Node, demand: Demand, spot: Spot) -> None:
        """Let a job run on what is held; it gives all back in time."""
        full = promise.hold.returned(node).after(demand, spot)
        promise.hold = hold_for(promise.job.demand, promise.reservation.spot, full, promise.leavers)
        self._board.update(promise.hold.taken(full))

    def held_nodes(self) -> list[tuple[Promise, Node]]:
        """For each promise the worker as its holder sees it."""
        found = [(promise, self._board.node(promise.reservation.spot.node)) for promise in self.kept.values()]
        return [(promise, promise.hold.returned(node)) for promise, node in found if node is not None]

    @property
    def all(self) -> tuple[Reservation, ...]:
        """What holds from now on."""
        return (*(promise.reservation for promise in self.kept.values()), *self.unheld)


def _place_in(demand: Demand, device: str, node: Node) -> Spot | None:
    """The first place on a worker."""
    if not fits(demand, node, device):
        return None
    found = opening(demand, device, node, ())
    return found.spot if found else None
