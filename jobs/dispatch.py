"""One pass of the dispatcher: read the queue and the fleet, plan, write the placements. The caller commits."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.orm import Session

from stoker.jobs.attempts import Outgoing
from stoker.jobs.capacity import live_fleet
from stoker.jobs.decisions import keep_reservations, make_room, place
from stoker.jobs.fleet import DISPATCH_LOCK, database_clock
from stoker.jobs.lanes import Lanes
from stoker.jobs.leases import BROKER_DOWN_SQL, outgoing
from stoker.jobs.placement import LeastLoss, Rule
from stoker.jobs.planner import plan
from stoker.jobs.policy import DEFAULT_POLICY, Policy
from stoker.jobs.present import Estimator, Runs, limits_only, reservations, shares
from stoker.jobs.protocol import PROTOCOL
from stoker.jobs.situation import Candidate, Situation
from stoker.jobs.window import READY, WINDOW, Demands

LATEST_JOBS = 100
# Whether newer code dispatches too: a worker of its version is alive, or a job that it accepted of late could start.
_NEWER = f"""
    EXISTS (SELECT FROM incarnations JOIN leases ON holder_id = incarnations.id
        WHERE closed_at IS NULL AND protocol > {PROTOCOL} AND expires_at > clock_timestamp())
    OR EXISTS (SELECT FROM (SELECT * FROM jobs ORDER BY number DESC LIMIT {LATEST_JOBS}) latest
        WHERE protocol > {PROTOCOL} AND {READY})
"""  # noqa: S608 - constants
# Older code does not even try for the lock: a newer process that found it taken would trust its holder to look.
_WISH_AND_TRY = text(f"""
SELECT nextval('dispatch_wishes'), CASE WHEN {_NEWER} THEN false ELSE pg_try_advisory_xact_lock({DISPATCH_LOCK}) END,
    {BROKER_DOWN_SQL}
""")


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did."""

    sent: tuple[Outgoing, ...]  # placed now: their messages are to be sent after the commit
    again: int | None  # the wish of this pass; a later one asks for another. None: it is for another process to place
    more: bool = False  # the window was too small for all that can start: another pass is due at once


def last_wish(session: Session) -> int:
    """The latest wish for a pass."""
    return int(session.scalar(text("SELECT last_value FROM dispatch_wishes")) or 0)


@dataclass(frozen=True, slots=True)
class Means:
    """What a process keeps between its passes: they decide the same without it, and slower."""

    rule: Rule = field(default_factory=LeastLoss)
    demands: Demands = field(default_factory=Demands)
    estimator: Estimator = limits_only
    policy: Policy = DEFAULT_POLICY
    runs: Runs = field(default_factory=Runs)


def dispatch(session: Session, means: Means | None = None, depth: int = WINDOW) -> Pass:
    """Place what can start now, unless another process is doing so; without means as if no job was ever seen.

    Leaves that to newer code where there is any: this one may not place what that accepted, and would plan without it.
    Looks at the first ``depth`` jobs of each user, priority and shape; the pass says when that was not enough.
    """
    means = means or Means()
    # The wish comes before the try: a holder that looks for wishes after its commit cannot miss it.
    seen, held, down = session.execute(_WISH_AND_TRY).one()
    if not held:
        return Pass((), None)
    lanes = Lanes(session, depth, means.demands)
    if down or not lanes.lanes:
        return Pass((), seen)
    situation = read_situation(session, lanes.first, means, lanes)
    made = plan(situation, means.rule)
    refused = make_room(session, made.preemptions)
    placed = [attempt for placement in made.placements if (attempt := place(session, placement)) is not None]
    kept = [reservation for reservation in made.reservations if reservation.number not in refused]
    keep_reservations(session, situation.reservations, kept)
    return Pass(tuple(outgoing(session, placed)), seen, more=not made.complete or bool(refused))


def read_situation(
    session: Session, queue: Sequence[Candidate], means: Means, unread: Lanes | None = None
) -> Situation:
    """All that a plan for these jobs is made of, as it is in this transaction."""
    running = means.runs.read(session)
    return Situation(
        now=database_clock(session),
        queue=queue,
        fleet=live_fleet(session),
        running=running,
        reservations=reservations(session),
        shares=shares(session),
        policy=means.policy,
        estimates=means.estimator(session, unread.seen if unread else queue, running),
        unread=unread,
    )
