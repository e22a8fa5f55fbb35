"""Every error of Stoker, one tree.

StokerError
├── InvalidInput            422  what was sent cannot be accepted; names the field and how to fix it
│   ├── SettingInvalid           a STOKER_* variable
│   └── Unrunnable               no worker could ever run the job
├── NotAuthenticated        401
├── Forbidden               403
├── NotFound                404
│   └── JobNotFound
├── Conflict                409
│   ├── MoveRefused              the job's state does not allow it
│   │   └── OtherVersion         newer code has accepted the job than would move it
│   └── KeyReused                one Idempotency-Key, two different bodies
├── TooLarge                413
├── DiskFull                507  the server has no room for what was sent
├── Unavailable             503  a service is down; try again
├── Undelivered                  a notification did not reach its recipient
├── AttemptClosed                the fence: the writer has lost its job
├── DataDamaged                  bytes do not match their digest
├── ConfinementUnavailable       the kernel cannot keep a job's code inside its bounds
└── StackError                   the embedded stack cannot start or is held by another process
    ├── ServiceRefused           a service of it cannot use a setting
    └── OtherSchema              the database has older or newer tables than this code, or none

Each class has a stable ``code`` that clients may match on and a ``status`` for HTTP. Arguments are kept raw in
``args``, so that an error can be rebuilt after a journey; the sentence is made in ``__str__``.
"""

from uuid import UUID


class StokerError(Exception):
    """Base of all errors that Stoker raises on purpose."""

    code = "error"
    status = 500


class InvalidInput(StokerError, ValueError):
    """A value that was given cannot be accepted."""

    code = "invalid"
    status = 422

    def __init__(self, field: str, problem: str, fix: str = "") -> None:
        super().__init__(field, problem, fix)
        self.field, self.problem, self.fix = field, problem, fix

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" + (f"; {self.fix}" if self.fix else "")


class SettingInvalid(InvalidInput):
    """A STOKER_* variable is unknown or has a value that cannot be used."""

    code = "setting_invalid"


class Unrunnable(InvalidInput):
    """No worker known in the last seven days could run the job, even when empty."""

    code = "unrunnable"


class NotAuthenticated(StokerError):
    """No token, or one that is unknown, expired or revoked."""

    code = "not_authenticated"
    status = 401

    def __str__(self) -> str:
        return "a valid token is needed: send `Authorization: Bearer stk_…` (see `stoker login`)"


class Forbidden(StokerError):
    """The caller may not do this."""

    code = "forbidden"
    status = 403

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self.action = action

    def __str__(self) -> str:
        return f"you may not {self.action}"


class NotFound(StokerError):
    """What was named does not exist, or the caller may not see it."""

    code = "not_found"
    status = 404

    def __init__(self, kind: str, name: object, hint: str = "") -> None:
        super().__init__(kind, name, hint)
        self.kind, self.name, self.hint = kind, name, hint

    def __str__(self) -> str:
        return f"no {self.kind} {self.name}" + (f"; {self.hint}" if self.hint else "")


class JobNotFound(NotFound):
    """No job has this number, or the caller may not see it."""

    code = "job_not_found"

    def __init__(self, number: object) -> None:
        super().__init__("job", number)
        self.args = (number,)


class Conflict(StokerError):
    """The request and the present state exclude each other."""

    code = "conflict"
    status = 409

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class MoveRefused(Conflict):
    """The job is not in a state from which this move is allowed."""

    code = "move_refused"

    def __init__(self, number: int, move: str, state: str) -> None:
        super().__init__(f"cannot {move} job {number}: it is {state}")
        self.args = (number, move, state)
        self.number, self.move, self.state = number, move, state


class AlreadyFinal(MoveRefused):
    """The job has reached a final state before the request came."""

    code = "already_final"


class OtherVersion(MoveRefused):
    """A newer Stoker accepted the job; this one might not understand all that moving it means."""

    code = "other_version"

    def __str__(self) -> str:
        return f"cannot {self.move} job {self.number}: a newer Stoker accepted it; ask the upgraded API"


class KeyReused(Conflict):
    """An Idempotency-Key came a second time with another body."""

    code = "idempotency_key_reused"


class TooLarge(StokerError):
    """More bytes than are accepted here."""

    code = "too_large"
    status = 413

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(what, limit_bytes)
        self.what, self.limit_bytes = what, limit_bytes

    def __str__(self) -> str:
        return f"{self.what} is larger than {self.limit_bytes:,} bytes"


class DiskFull(StokerError):
    """The server has no room for what was sent."""

    code = "disk_full"
    status = 507

    def __str__(self) -> str:
        return "the server's disk is full; ask an administrator to free space in its home"


class Unavailable(StokerError):
    """A service that is needed does not answer at the moment."""

    code = "unavailable"
    status = 503

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service

    def __str__(self) -> str:
        return f"{self.service} does not answer; try again in a few seconds"


class Undelivered(StokerError):
    """A notification did not reach its recipient; the text is for the owner of the job."""

    code = "undelivered"

    def __init__(self, problem: str, *, again: bool = True) -> None:
        super().__init__(problem)
        self.problem, self.again = problem, again  # whether another try may help

    def __str__(self) -> str:
        return self.problem


class AttemptClosed(StokerError):
    """The attempt is not running here (any more): nothing may be written for it, its trainer must stop."""

    code = "attempt_closed"
    status = 409

    def __init__(self, attempt: UUID) -> None:
        super().__init__(attempt)
        self.attempt = attempt

    def __str__(self) -> str:
        return f"attempt {self.attempt} is closed or runs elsewhere"


class DataDamaged(StokerError):
    """Stored bytes do not match the digest under which they were stored."""

    code = "data_damaged"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is damaged: its bytes do not match their SHA-256"


class ConfinementUnavailable(StokerError):
    """The kernel cannot keep a job's code inside its bounds; the text says what is missing."""

    code = "confinement_unavailable"


class StackError(StokerError):
    """The embedded stack cannot start, or another process holds its home."""

    code = "stack"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ServiceRefused(StackError):
    """A service of the embedded stack cannot use a setting that only it looks at; the sentence is its own."""

    code = "service_refused"


class OtherSchema(StackError):
    """The database's tables are not those that this code works with; the text says what to do."""

    code = "other_schema"
