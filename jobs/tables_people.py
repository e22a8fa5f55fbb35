"""Tables: who may do what."""

from sqlalchemy import CheckConstraint, ForeignKey
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
    disabled_at: Mapped[Time | None]
    created_at: Mapped[Now]


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
