"""What teams and users have used and hold while a plan is made. Pure."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property

from stoker.jobs.fit import Demand
from stoker.jobs.shares import NO_QUOTA, TeamShare, cost, counted, decayed
from stoker.jobs.situation import LOW, Candidate, Running, Situation

Account = tuple[int, str, str]  # team, pool, device: cpu | gpu
NOBODY = TeamShare("")


class Ledger:
    """Charges what runs and what is placed, and says who is entitled to what."""

    def __init__(self, situation: Situation, pools: Mapping[int, str]) -> None:
        """Start from what was used and what runs; ``pools`` names the pool of each worker."""
        self._teams, self._policy = situation.shares.teams, situation.policy
        self._running, self._pools = situation.running, pools
        self._team_used: dict[int, float] = {team: share.used for team, share in self._teams.items()}
        self._user_used: dict[int, float] = dict(situation.shares.users)
        self._held: dict[Account, int] = defaultdict(int)
        self._entitled: dict[Account, int] = defaultdict(int)  # without low jobs, which no guarantee covers
        self._bounded = {team for team, share in self._teams.items() if share.quotas}
        for running in situation.running:
            seconds = max(self._policy.entry_seconds, situation.now - running.placed_at)
            self._charge(running.team, running.user, running.demand, running.spot.device, seconds)
            self.hold(running, pools.get(running.spot.node, ""), running.spot.device)

    def _charge(self, team: int, user: int, demand: Demand, device: str, seconds: float) -> None:
        charge = cost(demand, device, self._policy) * decayed(seconds, self._policy)
        self._team_used[team] = self._team_used.get(team, 0.0) + charge
        self._user_used[user] = self._user_used.get(user, 0.0) + charge

    def enter(self, job: Candidate, pool: str, device: str) -> None:
        """A job was placed: it is charged for its entry at once, so that a burst does not take all turns."""
        self._charge(job.team, job.user, job.demand, device, self._policy.entry_seconds)
        self.hold(job, pool, device)

    def promise(self, job: Candidate, device: str) -> None:
        """A place is kept for a job: charged like its entry, so that one team does not get all that are kept."""
        self._charge(job.team, job.user, job.demand, device, self._policy.entry_seconds)

    def hold(self, job: Candidate | Running, pool: str, device: str) -> None:
        """Count what a job takes, or what is held for it, against its team's quota."""
        if job.team in self._bounded:
            amount = counted(job.demand, device)
            self._held[job.team, pool, device] += amount
            if job.priority > LOW:
                self._entitled[job.team, pool, device] += amount

    def team_share(self, team: int) -> float:
        """What a team has used for its weight: the least goes first."""
        return round(self._team_used.get(team, 0.0) / self._teams.get(team, NOBODY).weight, 3)  # real ties are ties

    def modest(self, teams: Collection[int]) -> frozenset[int]:
        """Those teams that have used no more for their weight than these and all that run something on average."""
        active = {*teams, *(running.team for running in self._running)}
        weights = sum(self._teams.get(team, NOBODY).weight for team in active)
        average = sum(self._team_used.get(team, 0.0) for team in active) / max(weights, 1e-9)
        return frozenset(team for team in teams if self.team_share(team) <= average + 0.001)

    def user_share(self, user: int) -> float:
        """What a user has used: the least goes first."""
        return round(self._user_used.get(user, 0.0), 3)

    def bounded(self, team: int) -> bool:
        """Whether a team has any quota."""
        return team in self._bounded

    def limited(self, team: int) -> bool:
        """Whether a team may use no more than so much of a pool."""
        quotas = self._teams.get(team, NOBODY).quotas.values()
        return any(quota.gpus_limit_milli is not None or quota.cpus_limit_milli is not None for quota in quotas)

    def name(self, team: int) -> str:
        """What people call a team."""
        return self._teams.get(team, NOBODY).name

    def guaranteed_pools(self, job: Candidate, device: str, pools: Collection[str]) -> tuple[str, ...]:
        """The pools in which the job stays within its team's guarantee."""
        if job.team not in self._bounded or job.priority == LOW:
            return ()
        quotas, amount = self._teams[job.team].quotas, counted(job.demand, device)
        return tuple(
            pool
            for pool in quotas
            if pool in pools and self._entitled[job.team, pool, device] + amount <= quotas[pool].guaranteed(device)
        )

    def open_pools(self, job: Candidate, device: str, pools: Collection[str]) -> Collection[str] | None:
        """The pools in which the job stays within its team's limit; None: all of them."""
        if job.team not in self._bounded:
            return None
        quotas, amount = self._teams[job.team].quotas, counted(job.demand, device)
        full = set()
        for pool, quota in quotas.items():
            limit = quota.limit(device)
            if limit is not None and self._held[job.team, pool, device] + amount > limit:
                full.add(pool)
        return {pool for pool in pools if pool not in full} if full else None

    def limit(self, job: Candidate, device: str, pool: str) -> tuple[int, int | None]:
        """Thousandths that the job's team holds of a pool, and the most that it may."""
        quota = self._teams.get(job.team, NOBODY).quotas.get(pool, NO_QUOTA)
        return self._held[job.team, pool, device], quota.limit(device)

    @cached_property
    def guaranteed(self) -> frozenset[int]:
        """The running jobs that their team's guarantee covers: the highest priority first, then the longest there."""
        covered, used = set(), defaultdict[Account, int](int)
        for running in sorted(self._running, key=lambda one: (-one.priority, one.placed_at, one.number)):
            if running.team not in self._bounded or running.priority == LOW:
                continue
            pool, device = self._pools.get(running.spot.node, ""), running.spot.device
            account, amount = (running.team, pool, device), counted(running.demand, device)
            quota = self._teams[running.team].quotas.get(pool, NO_QUOTA)
            if used[account] + amount <= quota.guaranteed(device):
                used[account] += amount
                covered.add(running.number)
        return frozenset(covered)
