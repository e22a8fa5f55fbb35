"""The pure function that decides whose turn it is, where each job runs, who waits for what and who makes room."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from stoker.jobs.fit import Demand, Node, Spot, fits
from stoker.jobs.ledger import Ledger
from stoker.jobs.openings import Opening
from stoker.jobs.placement import Board, Rule
from stoker.jobs.promises import Promises
from stoker.jobs.reasons import NEXT, Reason
from stoker.jobs.situation import LOW, URGENT, Candidate, Placement, Preemption, Reservation, Running, Situation
from stoker.jobs.turns import Key, Line, standing
from stoker.jobs.victims import Able, Cheapest, Claim, Sort, preemptions
from stoker.jobs.waits import Verdict, why


@dataclass(frozen=True)
class Plan:
    """What a pass decided."""

    placements: tuple[Placement, ...]
    preemptions: tuple[Preemption, ...]
    reservations: tuple[Reservation, ...]  # all that hold from now on
    complete: bool  # False: the window ended before the plan did; another pass goes on
    made: "Pass" = field(compare=False, repr=False)

    @cached_property
    def waiting(self) -> tuple[Candidate, ...]:
        """The jobs that stay in the queue, in the order in which their turn was looked at."""
        placed = {placement.number for placement in self.placements}
        return tuple(job for job in self.made.situation.queue if job.number not in placed)

    @cached_property
    def reasons(self) -> dict[int, Reason]:
        """For each job that stays in the queue the reason; worked out when first asked for, a pass needs none."""
        return {job.number: self.reason(job) for job in self.waiting}

    def reason(self, job: Candidate) -> Reason:
        """Why a job that was not placed does not start now; also of one that stands behind the window."""
        return self.made.reason(job)


def plan(situation: Situation, rule: Rule) -> Plan:
    """Decide what happens now.

    Jobs take turns (``turns``). One whose turn it is starts where it loses the fleet least (``placement``), also on
    what is held for another if it ends before that can start (``promises``). One that cannot start asks others to
    make room if it is entitled to (``victims``), else it gets a reservation while there are few. Jobs of one user,
    class and demand never pass each other; all else may pass. Capacity promised here is never promised twice.
    """
    made = Pass(situation, rule)
    made.run()
    return Plan(tuple(made.placements), tuple(made.preemptions), made.reservations, made.complete, made)


class Pass:
    """A plan while it is made."""

    def __init__(self, situation: Situation, rule: Rule) -> None:
        self.situation = situation
        self.board = Board(situation.fleet, rule)
        self.ledger = Ledger(situation, {node.id: node.pool for node in situation.fleet})
        self.promises = Promises(situation, self.board)
        self.line = Line(situation, self.ledger, lambda job: bool(self._guaranteed(job)))
        self.placements: list[Placement] = []
        self.preemptions: list[Preemption] = []
        self.complete = True
        self.verdicts: dict[Key, Verdict] = {}
        self._full: set[tuple[Demand, str]] = set()  # equal demands fit alike, and nothing is freed during a plan
        self._pools: dict[tuple[Demand, str], frozenset[str]] = {}
        self._closed: set[Demand] = set()  # for which no place opens, whoever leaves
        self._victims = defaultdict[Sort, dict[int, Able]](dict)
        self._for_gpus = 0  # jobs that wait for a GPU, of those looked at so far

    def run(self) -> None:
        """Make the plan."""
        for reservation in self.situation.reservations:
            if reservation.expires_at is not None:
                self._settle(reservation)
        while (job := self.line.next()) is not None:
            spot = self._start(job)
            if spot is None:
                self._wait(job)
                self.line.skip(job)
                if self._exhausted():
                    return
            elif not self._place(job, spot) or len(self.placements) >= self.situation.policy.placements:
                self.complete = False
                self.preemptions.clear()
                return

    def _settle(self, reservation: Reservation) -> None:
        """What victims free goes to the job for which they were asked, or is held for it, or the hold lapses."""
        job = self.line.holder(reservation.number)
        if job is None:
            return
        if self.promises.ready(job, reservation):
            self._place(job, reservation.spot)
            return
        if self.situation.now < (reservation.expires_at or 0.0):
            self.promises.renew(job, reservation)
        if job.number in self.promises.kept:
            self._count(job, reservation.spot)
            self.verdicts[self.line.key(job)] = Verdict.NO_PLACE
            self.line.skip(job)
        else:
            self.line.release(job.number)

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """What holds from now on; a plan that did not come to its end changes nothing for those who still wait."""
        if self.complete:
            return self.promises.all
        placed = {placement.number for placement in self.placements}
        return tuple(one for one in self.situation.reservations if one.number not in placed)

    def _count(self, job: Candidate, spot: Spot) -> None:
        """What is being freed for a job counts for its team already."""
        node = self.board.node(spot.node)
        if node is not None:
            self.ledger.hold(job, node.pool, spot.device)
            self.line.touch(job.team)

    def _place(self, job: Candidate, spot: Spot) -> bool:
        node = self.board.node(spot.node)
        assert node is not None  # noqa: S101 - spots come from the board
        self.board.place(job.demand, spot)
        self.placements.append(Placement(job.number, job.demand, spot))
        self.ledger.enter(job, node.pool, spot.device)
        return self.line.take(job)

    def _start(self, job: Candidate) -> Spot | None:
        """Where a job can start now."""
        for device in self.board.devices(job.demand):
            open_pools = self.ledger.open_pools(job, device, self._possible(job.demand, device))
            if open_pools is not None and not open_pools:
                continue
            if (spot := self._free(job, device, open_pools)) is not None:
                return spot
            if device == "gpu" and job.demand.device == "auto" and self._sooner_on_gpu(job):
                return None
        return None

    def _free(self, job: Candidate, device: str, pools: Collection[str] | None) -> Spot | None:
        demand, spot = job.demand, None
        if (demand, device) not in self._full:
            if guaranteed := self._covered(job, device):
                spot = self.board.choose_on(device, demand, job.data, guaranteed)
            spot = spot or self.board.choose_on(device, demand, job.data, pools)
            if spot is None and pools is None:
                self._full.add((demand, device))
        return spot or (self.promises.pass_by(job, device, pools) if self.promises.kept else None)

    def _possible(self, demand: Demand, device: str) -> frozenset[str]:
        """The pools that have a worker on which a job could run, if it were empty."""
        if (demand, device) not in self._pools:
            pools = frozenset(node.pool for node in self.board.kinds if fits(demand, node, device))
            self._pools[demand, device] = pools
        return self._pools[demand, device]

    def _covered(self, job: Candidate, device: str) -> tuple[str, ...]:
        """The pools in which a team's guarantee covers a job on this device."""
        if not self.ledger.bounded(job):
            return ()
        return self.ledger.guaranteed_pools(job, device, self._possible(job.demand, device))

    def _guaranteed(self, job: Candidate) -> bool:
        return any(self._covered(job, device) for device in self.board.devices(job.demand))

    def _sooner_on_gpu(self, job: Candidate) -> bool:
        """Whether a job that may run on either is done sooner if it waits for a GPU, as far as anybody can tell."""
        on_gpu, on_cpu = (self.situation.estimates.of(job, device) for device in ("gpu", "cpu"))
        if on_gpu is None or on_cpu is None:
            return False
        wait = self._wait_for_gpu()
        return wait + on_gpu.middle < on_cpu.middle

    def _wait_for_gpu(self) -> float:
        """Seconds until a GPU is free that nobody before waits for."""
        ends = self._gpu_ends
        return ends[self._for_gpus] - self.situation.now if self._for_gpus < len(ends) else math.inf

    @cached_property
    def _gpu_ends(self) -> list[float]:
        on_gpus = (running for running in self.situation.running if running.spot.device == "gpu")
        return sorted(self.promises.ends_at(running) for running in on_gpus)

    def _wait(self, job: Candidate) -> None:
        """A job cannot start now: note why, let others make room for it if it may ask them, or reserve a place."""
        key, devices = self.line.key(job), self.board.devices(job.demand)
        allowed = [device for device in devices if self._may_run(job, device)]
        if not allowed and any(self._possible(job.demand, device) for device in devices):
            self.verdicts[key] = Verdict.TEAM_LIMIT
            return
        sooner = self._sooner_elsewhere(job, allowed)
        self.verdicts[key] = Verdict.GPU_SOONER if sooner else Verdict.NO_PLACE
        if "gpu" in devices:
            self._for_gpus += 1
        if not sooner and not self._make_room(job, allowed):
            if reservation := self._reservations.get(job.number):
                self.promises.renew(job, reservation)
            else:
                self._reserve(job, allowed)

    def _exhausted(self) -> bool:
        """Whether nothing can change any more, whoever is looked at: most passes of a full fleet end here."""
        if self._entitled() or len(self.promises.kept) + len(self.promises.unheld) < self.situation.policy.reservations:
            return False
        if self.line.holders:
            return False
        for demand in self.line.demands:
            for device in self.board.devices(demand):
                if (demand, device) not in self._full and self.board.choose_on(device, demand) is not None:
                    return False
                self._full.add((demand, device))
                if any(fits(demand, node, device) for _, node in self.promises.held_nodes()):
                    return False
        return True

    def _entitled(self) -> bool:
        """Whether anybody may ask others to make room, or is told of a limit; guarantees only fill up in a plan."""
        while (able := self._claimants) and able[-1].priority < URGENT and not self._guaranteed(able[-1]):
            able.pop()
        return bool(self._claimants) or self.ledger.limited

    @cached_property
    def _claimants(self) -> list[Candidate]:
        """One job of each team, class and demand that is urgent or that a guarantee may cover."""
        able = (job for job in self.situation.queue if job.priority == URGENT or self.ledger.bounded(job))
        return list({(job.team, self.line.key(job)[2:]): job for job in able}.values())

    def _may_run(self, job: Candidate, device: str) -> bool:
        pools = self.ledger.open_pools(job, device, self._possible(job.demand, device))
        return bool(self._possible(job.demand, device)) and (pools is None or bool(pools))

    def _sooner_elsewhere(self, job: Candidate, allowed: list[str]) -> bool:
        free_cpu = job.demand.device == "auto" and "cpu" in allowed and (job.demand, "cpu") not in self._full
        return free_cpu and "gpu" in allowed and self._sooner_on_gpu(job)

    @cached_property
    def _reservations(self) -> dict[int, Reservation]:
        return {one.number: one for one in self.situation.reservations if one.expires_at is None}

    def _make_room(self, job: Candidate, devices: list[str]) -> bool:
        """Ask the cheapest victims to leave, if the job may; only one set at a time."""
        for device in () if job.number in self._asked else devices:
            claim = Claim(job, device, self._covered(job, device))
            if not claim.anywhere():
                continue
            search = Cheapest(claim, self.ledger, self.situation.now, self.situation.policy, self._victims[claim.sort])
            for node, here in self._occupied(device, job):
                search.look(node, here, lambda node: self.promises.free_of(node)[0])
            if search.found is not None:
                self._promise(job, search.found, self._why(job, claim))
                return True
        return False

    @cached_property
    def _asked(self) -> frozenset[int]:
        """The jobs for which others are leaving."""
        return frozenset(one.leaves_for for one in self.situation.running if one.leaves_for is not None)

    def _occupied(self, device: str, job: Candidate) -> Iterable[tuple[Node, list[Running]]]:
        open_pools = self.ledger.open_pools(job, device, self._possible(job.demand, device))
        for node in self.board.nodes:
            if (open_pools is None or node.pool in open_pools) and (here := self.promises.staying(node.id)):
                yield node, here

    def _why(self, job: Candidate, claim: Claim) -> str:
        return f"which its team {self.ledger.name(job.team)} is guaranteed" if claim.pools else "which is urgent"

    def _promise(self, job: Candidate, found: Opening, why: str) -> None:
        self.promises.make(job, found, self.situation.policy.hold_seconds)
        self.preemptions += preemptions(job, found, why)
        self._count(job, found.spot)

    def _reserve(self, job: Candidate, devices: list[str]) -> None:
        """The first few jobs that cannot start get a place, which is then kept for them."""
        few = len(self.promises.kept) + len(self.promises.unheld) < self.situation.policy.reservations
        if few and job.demand not in self._closed and standing(job, self.situation.now, self.situation.policy) > LOW:
            pools = frozenset[str]().union(*(self._possible(job.demand, device) for device in devices))
            place = self.promises.soonest(job, [node for node in self.board.nodes if node.pool in pools])
            if place is None:
                self._closed.add(job.demand)
            else:
                self.promises.make(job, place)

    def reason(self, job: Candidate) -> Reason:
        """Why a job waits; those that never pass each other wait for the same."""
        if job.number in {placement.number for placement in self.placements}:
            return NEXT
        verdict = self.verdicts.get(self.line.key(job), Verdict.NO_PLACE)
        return why(job, verdict, self.board, self.promises, self.ledger)
