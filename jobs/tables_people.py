"""Tables: who may do what."""

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Digest, Now, Serial, Time


class Team(Base):
    """People who share a quota, a weight, and what they store."""

    __tablename__ = "teams"
    __table_args__ = (CheckConstraint("weight > 0", name="weight_positive"),)

    id: Mapped[Serial]
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[float] = mapped_column(server_default="1")
    created_at: Mapped[Now]


class User(Base):
    """A person, or a program acting for one."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('member', 'admin')", name="role_known"),)

    id: Mapped[Serial]
    name: Mapped[str] = mapped_column(unique=True)
    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), index=True)
    role: Mapped[str] = mapped_column(server_default="member")
    email: Mapped[str | None]  # where notifications of this user's jobs may go
    disabled_at: Mapped[Time | None]
    created_at: Mapped[Now]


class Pool(Base):
    """Workers that are shared out together, by the name that they gave; made by the first worker that names it."""

    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(primary_key=True)
    fractions: Mapped[bool] = mapped_column(server_default="false")  # jobs of one team may share a device
    created_at: Mapped[Now]


class TeamQuota(Base):
    """What a team is guaranteed in a pool, and the most that it may use there at once."""

    __tablename__ = "quotas"
    __table_args__ = (
        CheckConstraint("gpus_milli >= 0 AND cpus_milli >= 0", name="guarantee_positive"),
        CheckConstraint("gpus_limit_milli >= gpus_milli", name="gpus_limit_above"),
        CheckConstraint("cpus_limit_milli >= cpus_milli", name="cpus_limit_above"),
    )

    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), primary_key=True)
    pool: Mapped[str] = mapped_column(ForeignKey(Pool.name), primary_key=True)
    gpus_milli: Mapped[int] = mapped_column(server_default="0")
    cpus_milli: Mapped[int] = mapped_column(server_default="0")
    gpus_limit_milli: Mapped[int | None]  # none: it may borrow whatever is idle
    cpus_limit_milli: Mapped[int | None]


class Usage(Base):
    """Device-seconds of a user's attempts that have ended, decayed up to ``counted_at``."""

    __tablename__ = "usages"
    __table_args__ = (CheckConstraint("device_seconds >= 0", name="device_seconds_positive"),)

    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), primary_key=True)  # of the user at that time
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True, index=True)
    device_seconds: Mapped[float]
    counted_at: Mapped[Time]


class Token(Base):
    """A bearer token, of which only the SHA-256 is kept."""

    __tablename__ = "tokens"
    __table_args__ = (CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),)

    id: Mapped[Serial]
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), index=True)
    name: Mapped[str]
    sha256: Mapped[Digest] = mapped_column(unique=True)
    expires_at: Mapped[Time | None]
    revoked_at: Mapped[Time | None]
    created_at: Mapped[Now]


class Secret(Base):
    """A value that only a team's jobs get to see: encrypted here, a variable there."""

    __tablename__ = "secrets"

    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    created_by: Mapped[int] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[Now]


class IdempotencyKey(Base):
    """A submit that was accepted: the same key gives the same job again, while the key is remembered."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[Digest]
    job_number: Mapped[int] = mapped_column(
        ForeignKey("jobs.number", deferrable=True, initially="DEFERRED"), index=True
    )
    created_at: Mapped[Now] = mapped_column(index=True)
