"""Tables: bytes stored under their SHA-256, and what they mean."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stoker.jobs.base import Base, Digest, Now, Serial
from stoker.jobs.tables_people import Team, User


class Chunk(Base):
    """A piece of content of up to 1 MiB, stored once per team under its SHA-256."""

    __tablename__ = "chunks"
    __table_args__ = (
        CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
        CheckConstraint("octet_length(data) BETWEEN 1 AND 1048576", name="data_length"),
    )

    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), primary_key=True)
    sha256: Mapped[Digest] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    touched_at: Mapped[Now] = mapped_column(index=True)


class Blob(Base):
    """Content of any length as a list of chunks; its row is written when all of them are stored."""

    __tablename__ = "blobs"
    __table_args__ = (UniqueConstraint("team_id", "sha256"), CheckConstraint("bytes >= 0", name="bytes_positive"))

    id: Mapped[Serial]
    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id))
    sha256: Mapped[Digest]  # of the whole
    bytes: Mapped[int]
    created_at: Mapped[Now]


class BlobChunk(Base):
    """One chunk's place in a blob."""

    __tablename__ = "blob_chunks"
    __table_args__ = (Index(None, "team_id", "sha256"),)

    blob_id: Mapped[int] = mapped_column(ForeignKey(Blob.id, ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int]
    sha256: Mapped[Digest]


class Dataset(Base):
    """An uploaded data set; jobs name it and are pinned to the digest that the name had when they were submitted."""

    __tablename__ = "datasets"
    __table_args__ = (Index(None, "team_id", "name", "id"),)

    id: Mapped[Serial]
    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id))
    name: Mapped[str]
    sha256: Mapped[Digest]
    blob_id: Mapped[int] = mapped_column(ForeignKey(Blob.id), index=True)
    format: Mapped[str]
    summary: Mapped[dict[str, Any]]  # classes, images per split
    created_by: Mapped[int] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[Now]


class CodeSnapshot(Base):
    """A user's code as it was submitted; jobs refer to it by digest."""

    __tablename__ = "code_snapshots"

    team_id: Mapped[int] = mapped_column(ForeignKey(Team.id), primary_key=True)
    sha256: Mapped[Digest] = mapped_column(primary_key=True)
    blob_id: Mapped[int] = mapped_column(ForeignKey(Blob.id), index=True)
    summary: Mapped[dict[str, Any]]  # files, bytes, git commit
    created_by: Mapped[int] = mapped_column(ForeignKey(User.id))
    created_at: Mapped[Now]
    touched_at: Mapped[Now] = mapped_column(index=True)  # keeps the collector away until a job refers to it
