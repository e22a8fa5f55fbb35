"""Who can still get anything while a plan is made: it ends as soon as nobody can. Pure."""

from collections.abc import Callable, Collection

from stoker.jobs.fit import Demand, fits
from stoker.jobs.ledger import Ledger
from stoker.jobs.placement import Board
from stoker.jobs.promises import Promises
from stoker.jobs.situation import LOW, NORMAL, URGENT, Candidate, Situation


class Chances:
    """What was found out so far. Nothing is freed during a plan, so what was impossible once stays so."""

    def __init__(self, situation: Situation, board: Board, ledger: Ledger, promises: Promises) -> None:
        self._board, self._ledger, self._promises = board, ledger, promises
        for_fleet = max(1, len(situation.fleet) // situation.policy.workers_per_reservation)
        self._reservations = min(situation.policy.reservations, for_fleet)
        self.full: set[tuple[Demand, str]] = set()  # fits nowhere; equal demands fit alike
        self.closed: set[Demand] = set()  # for which no place opens, whoever leaves
        self._refused: set[tuple[int, Demand, int]] = set()  # of which team and class nobody can leave for
        self._stuck: set[Demand] = set()  # fits nowhere, nor on what is held for another
        self._pools: dict[tuple[Demand, str], frozenset[str]] = {}
        self._left: dict[int, list[Candidate]] = {}

    def possible(self, demand: Demand, device: str) -> frozenset[str]:
        """The pools that have a worker on which a job could run, if it were empty."""
        if (demand, device) not in self._pools:
            pools = frozenset(node.pool for node in self._board.kinds if fits(demand, node, device))
            self._pools[demand, device] = pools
        return self._pools[demand, device]

    def open_pools(self, job: Candidate, device: str) -> Collection[str] | None:
        """The pools in which the job stays within its team's limit; None: all of them."""
        return self._ledger.open_pools(job, device, self.possible(job.demand, device))

    def covered(self, job: Candidate, device: str) -> tuple[str, ...]:
        """The pools in which a team's guarantee covers a job on this device."""
        if not self._ledger.bounded(job.team):
            return ()
        return self._ledger.guaranteed_pools(job, device, self.possible(job.demand, device))

    def guaranteed(self, job: Candidate) -> bool:
        """Whether a team's guarantee covers a job."""
        return any(self.covered(job, device) for device in self._board.devices(job.demand))

    def allowed(self, job: Candidate) -> list[str] | None:
        """The devices on which a job stays within its team's limit; None: that alone keeps it from all."""
        devices = [device for device in self._board.devices(job.demand) if self.possible(job.demand, device)]
        found = []
        for device in devices:
            pools = self.open_pools(job, device)
            if pools is None or pools:
                found.append(device)
        return found if found or not devices else None

    @property
    def reservable(self) -> bool:
        """Whether one more job may get a reservation."""
        return len(self._promises.kept) + len(self._promises.unheld) < self._reservations

    def refuse(self, job: Candidate) -> None:
        """Nobody can make room for a job, nor for one of its team with the same demand and a lower class."""
        self._refused.update((job.team, job.demand, priority) for priority in range(job.priority + 1))

    def refused(self, job: Candidate) -> bool:
        """Whether it is known that nobody can make room for a job."""
        return (job.team, job.demand, job.priority) in self._refused

    def free(self, demand: Demand, device: str, pools: Collection[str] | None = None) -> bool:
        """Whether a job fits somewhere in these pools now."""
        if (demand, device) in self.full:
            return False
        fits_now = self._board.choose_on(device, demand, None, pools) is not None
        if not fits_now and pools is None:
            self.full.add((demand, device))
        return fits_now

    @property
    def found(self) -> tuple[int, ...]:
        """How much was found out: while this stays the same, so do all answers of ``over`` for equal arguments."""
        promised = len(self._promises.kept) + len(self._promises.unheld)
        return (promised, len(self.full), len(self.closed), len(self._refused))

    def patient(self, teams: Collection[int]) -> bool:
        """Whether a job of these teams may have to choose between a CPU now and a GPU later: it counts who waits."""
        kinds = (kind.demand for team in teams for kind in self._left.get(team, ()) if kind.demand.device == "auto")
        return any("gpu" in self._board.devices(demand) and self.free(demand, "cpu") for demand in kinds)

    def over(self, team: int, demands: Callable[[int], Collection[Demand]], highest: int, asked: int) -> bool:
        """Whether no job of a team can get anything any more.

        Args:
            team: Whose jobs.
            demands: All that a team's jobs ask for, or more; asked in the first call for a team.
            highest: The highest class in which those left go.
            asked: The highest class that they asked for: waiting makes nobody leave.
        """
        if team not in self._left:
            self._left[team] = [Candidate(0, NORMAL, demand, team) for demand in demands(team)]
        left = self._left[team]
        opens = highest > LOW and self.reservable and (self._promises.anybody_stays() or self._ledger.limited(team))
        asks = asked == URGENT or (asked > LOW and self._ledger.bounded(team))
        while left and not self._chance(left[-1], asked, opens=opens, asks=asks):
            left.pop()
        return not left

    def _chance(self, job: Candidate, asked: int, *, opens: bool, asks: bool) -> bool:
        if opens and job.demand not in self.closed:
            return True
        if asks and (job.team, job.demand, asked) not in self._refused and (asked == URGENT or self.guaranteed(job)):
            return True
        return job.demand not in self._stuck and self._may_start(job)

    def _may_start(self, job: Candidate) -> bool:
        everywhere = True
        for device in self._board.devices(job.demand):
            pools = self.open_pools(job, device)
            if self.free(job.demand, device, pools) or self._promises.may_pass(job.demand, device, pools):
                return True
            everywhere = everywhere and pools is None
        if everywhere:
            self._stuck.add(job.demand)
        return False
