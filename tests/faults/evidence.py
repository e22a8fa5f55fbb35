"""What a database holds after a run, as plain values: all that the checker looks at beside the history."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]]  # metric -> steps, values, after supersession


@dataclass(frozen=True, slots=True)
class AttemptFact:
    """One attempt; times in seconds by the database's clock."""

    id: str
    ordinal: int
    state: str
    outcome: str | None
    claimed_at: float | None = None
    closed_at: float | None = None  # the moment at which the transaction that ended it was committed
    resumed_from: int | None = None  # checkpoint
    stepped: bool = False  # made at least one step
    last_write_at: float | None = None  # the start of the last transaction that wrote a checkpoint or log of it
    failure: str | None = None  # class


@dataclass(frozen=True, slots=True)
class CheckpointFact:
    """One row of the table of checkpoints."""

    id: int
    step: int
    readable: bool  # its bytes are all there and have its digest; true too for one whose bytes are not kept any more
    reported: bool  # marked as damaged by the system itself


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training is worth, apart from how long it took: equal for equal specs, bit for bit."""

    weights: str | None  # SHA-256 over the model's tensors in the final checkpoint
    predictions: str | None  # SHA-256
    series: Series = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobFact:
    """One job with all that is stored about it."""

    number: int
    recipe: str
    key: str | None  # the Idempotency-Key under which it was accepted
    state: str
    failure: str | None  # class
    moves: tuple[str, ...]  # changes of its state, in the order in which they happened
    results: int
    predictions: int
    result_attempt: str | None
    outcome: Outcome
    attempts: tuple[AttemptFact, ...]
    checkpoints: tuple[CheckpointFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All jobs, and what must be back at nothing once they have ended."""

    jobs: tuple[JobFact, ...]
    in_use: Mapping[str, int] = field(default_factory=dict)  # worker or device, and counter -> what is still taken
    leases: int = 0  # of attempts
