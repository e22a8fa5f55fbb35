"""What is refused when it is submitted, because it could never run: no worker has so much, or no team may take it."""

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker.errors import InvalidInput, Unrunnable
from stoker.jobs.allowance import Allowance
from stoker.jobs.capacity import known_fleet
from stoker.jobs.fit import Demand, Node, devices_for, fits, kinds_of
from stoker.jobs.models import Pool, Team, TeamQuota
from stoker.jobs.reasons import Reason
from stoker.jobs.recipients import Mailbox, recipient
from stoker.jobs.shares import NO_QUOTA, Quota, counted
from stoker.jobs.spec import JobSpec
from stoker.jobs.waits import never
from stoker.jobs.window import demand_of

# a reason's code -> the field that asks for too much; of `gpu_type` the number, where no type was asked for
FIELDS = {name: name for name in ("gpus", "cpus", "memory", "gpu_memory")}
FIELDS |= {"no_gpu": "device", "fractions": "gpus", "gpu_type": "gpus"}


def refuse_unrunnable(session: Session, spec: JobSpec, team_id: int) -> None:
    """Raise Unrunnable when the job could never run.

    Because no worker known in the last seven days could run it, even when empty; because it asks for a part of a GPU
    and no pool allows that; or because it is larger than what its team may use at once wherever it would fit.
    """
    demand = demand_of(spec.document()["resources"])
    if demand.shares and demand.device == "gpu" and not session.scalar(select(Pool.name).where(Pool.fractions)):
        share = f"{demand.gpu_milli / 1000:g}"
        raise Unrunnable("resources.gpus", f"{share} of a GPU: no pool allows parts of one", "ask for a whole GPU")
    kinds = kinds_of(known_fleet(session))
    if (reason := never(demand, kinds)) is not None:
        raise Unrunnable(_field(reason, demand), f"no worker could ever run this: {reason.sentence}", "ask for less")
    _refuse_above_limits(session, demand, kinds, team_id)


def _field(reason: Reason, demand: Demand) -> str:
    """The field of a spec for which a reason stands."""
    fields = FIELDS | {"gpu_type": "gpu_type"} if demand.gpu_types else FIELDS
    return f"resources.{fields[reason.code]}" if reason.code in fields else "resources"


def refuse_network(asked: str, allowed: str) -> None:
    """Raise InvalidInput for a job that asks for more network than the administrator allows (none | open)."""
    if asked != "none" and allowed == "none":
        raise InvalidInput("network", f"{asked} is not allowed here: STOKER_NETWORK is none", "set network: none")


def refuse_notify(wanted: Iterable[str], allowance: Allowance, *, mails: bool, registered: str | None) -> None:
    """Raise InvalidInput for a recipient that a job may not notify; ``mails``: whether the server can send any."""
    for one in map(recipient, wanted):
        allowance.refuse(one, registered)
        if isinstance(one, Mailbox) and not mails:
            raise InvalidInput("notify", "this server sends no mail: STOKER_SMTP_URL is not set", "name a webhook")


def _refuse_above_limits(session: Session, demand: Demand, kinds: Iterable[Node], team_id: int) -> None:
    rows = session.execute(
        select(TeamQuota, Team.name).join(Team, Team.id == TeamQuota.team_id).where(TeamQuota.team_id == team_id)
    ).all()
    if not rows:
        return
    quotas = {
        row.pool: Quota(row.gpus_milli, row.cpus_milli, row.gpus_limit_milli, row.cpus_limit_milli) for row, _ in rows
    }
    most: list[tuple[int, str, str]] = []
    for device in devices_for(demand, list(kinds)):
        for pool in {node.pool for node in kinds if fits(demand, node, device)}:
            limit = quotas.get(pool, NO_QUOTA).limit(device)
            if limit is None or counted(demand, device) <= limit:
                return
            most.append((limit, device, pool))
    if most:
        limit, device, pool = max(most)
        unit, field = ("GPUs", "gpus") if device == "gpu" else ("CPUs", "cpus")
        asked = counted(demand, device) / 1000
        problem = f"needs {asked:g} {unit}; team {rows[0][1]} may use {limit / 1000:g} at once in the pool {pool}"
        raise Unrunnable(f"resources.{field}", problem, "ask for less, or have the limit raised: `stoker quota`")
