"""What a job waits for, in full, and the queue as a whole."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from stoker.jobs.accounts import Caller
from stoker.jobs.changes import refuse_urgent
from stoker.jobs.durations import running_durations
from stoker.jobs.forecast import like
from stoker.jobs.leases import broker_down
from stoker.jobs.ledger import Ledger
from stoker.jobs.lifecycle import FINAL, State
from stoker.jobs.models import Dependency, Job, Team, User
from stoker.jobs.prospects import UNABLE, Ahead, Expected, Foresight, Prospect
from stoker.jobs.reasons import BACKING_OFF, BROKER_DOWN, HELD, NEXT, Reason
from stoker.jobs.refusals import refuse_unrunnable
from stoker.jobs.shares import counted
from stoker.jobs.situation import NEW, Candidate, Situation
from stoker.jobs.spec import PRIORITIES, JobSpec
from stoker.jobs.told import PastError, past_error
from stoker.jobs.visibility import visible
from stoker.jobs.window import demand_of

_PRIORITY_NAMES = {level: name for name, level in PRIORITIES.items()}


@dataclass(frozen=True, slots=True)
class Why:
    """What a job waits for; for one that does not wait, its state."""

    code: str  # stable; of a job that does not wait, its state
    sentence: str
    position: int | None = None  # 1: the next to start; None: it does not wait for its turn, or is too far away to tell
    ahead: list[Ahead] = field(default_factory=list)  # those that start before it, by team
    further: bool = False  # more than those do: how many, and when it starts, is too far away to tell
    expected: Expected | None = None
    where: str | None = None  # the worker on which it is expected to run
    helps: list[str] = field(default_factory=list)  # what would let it start sooner


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """A job in the queue, of those that the caller may see."""

    number: int
    name: str
    owner: str
    team: str
    priority: str
    state: str
    queued_at: datetime | None
    why: Why


@dataclass(frozen=True, slots=True)
class TeamShareView:
    """What a team uses and is entitled to. Everybody sees all teams: who shares has to see that it is fair."""

    team: str
    weight: float
    share: float  # of what all teams used, newer use counting more; 0 to 1
    entitled: float  # its weight against all weights
    gpus: float  # that its jobs hold now
    cpus: float
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class QueueView:
    """What waits, the next to start first; how shares stand; how good past estimates were."""

    items: list[QueueItem]
    waiting: int  # jobs in the queue, those of others too
    teams: list[TeamShareView]
    estimates: PastError


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job waits. Its place in the queue is told by ``why``."""

    code: str
    sentence: str


def explain(session: Session, job: Job, foresight: Foresight) -> Explanation | None:
    """Say what a waiting or queued job waits for, as ``why`` says it; None for any other."""
    if job.state not in {State.WAITING, State.QUEUED}:
        return None
    reason = _apart(session, job)
    if reason is None:
        reason = foresight.reason(session, job.number)
    return Explanation(reason.code, reason.sentence)


def why(session: Session, job: Job, foresight: Foresight) -> Why:
    """Say what a job waits for, where it stands, when it may be expected to start and end, and what would help."""
    state = State(job.state)
    if state in FINAL:
        return Why(state, f"it is {state}")
    if state in {State.PLACED, State.RUNNING}:
        return Why(state, f"it is {state}", expected=_ending(session, job, foresight))
    reason = _apart(session, job)
    if reason is not None:
        return Why(reason.code, reason.sentence)
    found = foresight.look(session, [job.number]).prospects(session, [job.number])
    return _why(found[0]) if found else Why(NEXT.code, NEXT.sentence)


def _apart(session: Session, job: Job) -> Reason | None:
    """Why a job that waits does not take turns at all; None: it does."""
    if job.state == State.WAITING:
        return _waits_for_parents(session, job)
    if job.held:
        return HELD
    if session.scalar(select(Job.not_before > func.now()).where(Job.number == job.number)):
        return BACKING_OFF
    return BROKER_DOWN if broker_down(session) else None


def _why(prospect: Prospect) -> Why:
    return Why(
        prospect.reason.code,
        prospect.reason.sentence,
        prospect.position,
        prospect.ahead,
        prospect.further,
        None if prospect.reason.code in UNABLE else prospect.expected,
        prospect.where,
        prospect.helps,
    )


def _ending(session: Session, job: Job, foresight: Foresight) -> Expected | None:
    runs = running_durations(session, foresight.known(session), [job.number])
    if not runs:
        return None
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return Expected(job.started_at, None, None, now + timedelta(seconds=runs[0].left.p50_seconds))


def _waits_for_parents(session: Session, job: Job) -> Reason:
    rows = session.execute(
        select(Job.number, Job.state)
        .join(Dependency, Dependency.parent_number == Job.number)
        .where(Dependency.job_number == job.number, Job.state != State.SUCCEEDED)
        .order_by(Job.number)
    ).all()
    named = ", ".join(f"{number} ({state})" for number, state in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return Reason("after", f"starts after job{'s' if len(rows) > 1 else ''} {named}{more}")


def read_queue(session: Session, caller: Caller, foresight: Foresight, limit: int) -> QueueView:
    """The queue as the caller may see it: the first so many jobs that wait for their turn, then those that are held."""
    look = foresight.look(session)
    found = look.next(session, None if caller.admin else caller.team_id, limit)
    prospects = {prospect.number: prospect for prospect in found}
    statement = (
        select(Job, User.name, Team.name)
        .join(User, User.id == Job.owner_id)
        .join(Team, Team.id == Job.team_id)
        .where(visible(caller, Job.team_id))
    )
    apart = or_(Job.state == State.WAITING, Job.held, Job.not_before > func.now())
    apart_too = statement.where(Job.state.in_([State.WAITING, State.QUEUED]), apart).order_by(Job.number).limit(limit)
    rows = [*session.execute(statement.where(Job.number.in_(prospects))), *session.execute(apart_too)]
    items = [
        QueueItem(
            number=job.number,
            name=job.name,
            owner=owner,
            team=team,
            priority=_PRIORITY_NAMES[job.priority],
            state=job.state,
            queued_at=job.queued_at,
            why=_why(prospects[job.number]) if job.number in prospects else why(session, job, foresight),
        )
        for job, owner, team in rows
    ]
    places = {number: place for place, number in enumerate(prospects)}
    items.sort(key=lambda item: (places.get(item.number, NEW), item.number))
    counts = _counted(session)
    waiting = sum(sum(states.values()) for states in counts.values())
    queued = {team: states.get(State.QUEUED, 0) for team, states in counts.items()}
    return QueueView(items[:limit], waiting, team_shares(look.situation, queued), past_error(session))


def _counted(session: Session) -> dict[int, dict[str, int]]:
    """How many jobs are waiting and queued, by team: one look at all of them."""
    found: dict[int, dict[str, int]] = defaultdict(dict)
    states = select(Job.team_id, Job.state, func.count()).where(Job.state.in_([State.WAITING, State.QUEUED]))
    for team, state, jobs in session.execute(states.group_by(Job.team_id, Job.state)):
        found[team][state] = jobs
    return found


def team_shares(situation: Situation, waiting: Mapping[int, int]) -> list[TeamShareView]:
    """How shares stand: what was used, newer use counting more, by teams that used or want something."""
    ledger = Ledger(situation, {node.id: node.pool for node in situation.fleet})
    teams = situation.shares.teams
    used = {team: ledger.team_share(team) * share.weight for team, share in teams.items()}
    held = {team: [running for running in situation.running if running.team == team] for team in teams}
    total, weights = sum(used.values()), sum(share.weight for share in teams.values())
    found = [
        TeamShareView(
            share.name,
            share.weight,
            used[team] / total if total else 0.0,
            share.weight / weights,
            sum(counted(one.demand, "gpu") for one in held[team] if one.spot.device == "gpu") / 1000,
            sum(one.demand.cpus_milli for one in held[team]) / 1000,
            len(held[team]),
            waiting.get(team, 0),
        )
        for team, share in teams.items()
        if used[team] or waiting.get(team) or held[team]
    ]
    return sorted(found, key=lambda view: (-view.share, view.team))


def foretell(session: Session, caller: Caller, spec: JobSpec, foresight: Foresight) -> Why:
    """What would become of a job if it were submitted now; nothing is stored.

    Raises what submitting it would raise: Unrunnable when no worker could ever run it; UrgentInUse.
    """
    refuse_unrunnable(session, spec, caller.team_id)
    if spec.priority == "urgent" and not caller.admin:
        refuse_urgent(session, caller.team_id)
    document: dict[str, Any] = spec.document()
    job = Candidate(
        NEW,
        PRIORITIES[spec.priority],
        demand_of(document["resources"], None, caller.team_id),
        team=caller.team_id,
        user=caller.user_id,
        queued_at=datetime.now(UTC).timestamp(),
        time_limit_seconds=spec.time_limit,
    )
    lasts = foresight.known(session).expected(like(document, owner_id=caller.user_id, team_id=caller.team_id))
    look = foresight.look(session, extra=(job, lasts))
    return _why(look.prospects(session, [NEW])[0])
