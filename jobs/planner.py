"""The pure function that decides whose turn it is, where each job runs, who waits for what and who makes room."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from stoker.jobs.chances import Chances
from stoker.jobs.fit import Node, Spot
from stoker.jobs.ledger import Ledger
from stoker.jobs.openings import Opening
from stoker.jobs.placement import Board, Rule
from stoker.jobs.promises import Promises
from stoker.jobs.reasons import NEXT, Reason
from stoker.jobs.situation import LOW, Candidate, Placement, Preemption, Reservation, Running, Situation
from stoker.jobs.turns import Key, Line
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
        self.chances = Chances(situation, self.board, self.ledger, self.promises)
        self.line = Line(situation, self.ledger, self.chances.guaranteed)
        self.placements: list[Placement] = []
        self.preemptions: list[Preemption] = []
        self.complete = True
        self.verdicts: dict[Key, Verdict] = {}
        self._found: tuple[int, ...] = ()  # when the plan was last seen not to be at its end
        self._cut = False  # it ended at the end of its window: nothing changes for those who still wait
        self._asks = 0
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
                if self._asks >= self.situation.policy.askings:
                    self.complete = False
                    return
                if self._exhausted():
                    return
            elif not self._place(job, spot) or len(self.placements) >= self.situation.policy.placements:
                self.complete = False
                self.preemptions.clear()
                self._cut = True
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
        """What holds from now on; in a plan that did not come to its end also for those whom it did not look at."""
        made = () if self._cut else self.promises.all
        if self.complete:
            return made
        settled = {one.number for one in made} | {one.number for one in self.placements}
        return (*made, *(one for one in self.situation.reservations if one.number not in settled))

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
            open_pools = self.chances.open_pools(job, device)
            if open_pools is not None and not open_pools:
                continue
            if (spot := self._free(job, device, open_pools)) is not None:
                return spot
            if device == "gpu" and job.demand.device == "auto" and self._sooner_on_gpu(job):
                return None
        return None

    def _free(self, job: Candidate, device: str, pools: Collection[str] | None) -> Spot | None:
        demand, spot = job.demand, None
        if (demand, device) not in self.chances.full:
            if guaranteed := self.chances.covered(job, device):
                spot = self.board.choose_on(device, demand, job.data, guaranteed)
            spot = spot or self.board.choose_on(device, demand, job.data, pools)
            if spot is None and pools is None:
                self.chances.full.add((demand, device))
        return spot or (self.promises.pass_by(job, device, pools) if self.promises.kept else None)

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
        allowed = self.chances.allowed(job)
        if allowed is None:
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
            if (promise := self.promises.kept.get(job.number)) is not None:
                self.ledger.promise(job, promise.reservation.spot.device)
                self.line.touch(job.team)

    def _exhausted(self) -> bool:
        """Whether nothing can change any more, whoever is looked at: most passes of a full fleet end here."""
        found = (len(self.placements), self.line.emptied, *self.chances.found)
        if found == self._found:
            return False
        teams = self.line.highest
        over = [team for team, classes in teams.items() if self.chances.over(team, self.line.demands, *classes)]
        if len(over) == len(teams) and not self.line.holders:
            return True
        if not self.chances.patient(teams):
            for team in over:
                self.line.drop(team)
        self._found = (len(self.placements), self.line.emptied, *self.chances.found)
        return False

    def _sooner_elsewhere(self, job: Candidate, allowed: list[str]) -> bool:
        if job.demand.device != "auto" or not {"cpu", "gpu"}.issubset(allowed):
            return False
        return self.chances.free(job.demand, "cpu", self.chances.open_pools(job, "cpu")) and self._sooner_on_gpu(job)

    @cached_property
    def _reservations(self) -> dict[int, Reservation]:
        return {one.number: one for one in self.situation.reservations if one.expires_at is None}

    def _make_room(self, job: Candidate, devices: list[str]) -> bool:
        """Ask the cheapest victims to leave, if the job may; only one set at a time."""
        if job.number in self._asked or self.chances.refused(job):
            return False
        for device in devices:
            claim = Claim(job, device, self.chances.covered(job, device))
            if not claim.anywhere():
                continue
            search = Cheapest(claim, self.ledger, self.situation.now, self.situation.policy, self._victims[claim.sort])
            for node, here in self._occupied(device, job):
                search.look(node, here, lambda node: self.promises.free_of(node)[0])
            if search.found is not None:
                self._promise(job, search.found, self._why(job, claim))
                return True
        self.chances.refuse(job)
        return False

    @cached_property
    def _asked(self) -> frozenset[int]:
        """The jobs for which others are leaving."""
        return frozenset(one.leaves_for for one in self.situation.running if one.leaves_for is not None)

    def _occupied(self, device: str, job: Candidate) -> Iterable[tuple[Node, list[Running]]]:
        open_pools = self.chances.open_pools(job, device)
        for node in self.board.nodes:
            if (open_pools is None or node.pool in open_pools) and (here := self.promises.staying(node.id)):
                yield node, here

    def _why(self, job: Candidate, claim: Claim) -> str:
        return f"which its team {self.ledger.name(job.team)} is guaranteed" if claim.pools else "which is urgent"

    def _promise(self, job: Candidate, found: Opening, why: str) -> None:
        self.promises.make(job, found, self.situation.policy.hold_seconds)
        self.preemptions += preemptions(job, found, why)
        self._asks += 1
        self._count(job, found.spot)

    def _reserve(self, job: Candidate, devices: list[str]) -> None:
        """The first few jobs that cannot start get a place, which is then kept for them."""
        open_to = self.chances.reservable and job.demand not in self.chances.closed
        if open_to and self.line.standing(job) > LOW:
            pools = frozenset[str]().union(*(self.chances.possible(job.demand, device) for device in devices))
            place = self.promises.soonest(job, [node for node in self.board.nodes if node.pool in pools])
            if place is None:
                self.chances.closed.add(job.demand)
            else:
                self.promises.make(job, place)

    def reason(self, job: Candidate) -> Reason:
        """Why a job waits; those that never pass each other wait for the same."""
        if job.number in {placement.number for placement in self.placements}:
            return NEXT
        verdict = self.verdicts.get(self.line.key(job))
        if verdict is None:  # a plan ends before it looks at jobs that can get nothing
            verdict = Verdict.TEAM_LIMIT if self.chances.allowed(job) is None else Verdict.NO_PLACE
        return why(job, verdict, self.board, self.promises, self.ledger)
