"""A team's own code: what its jobs run, read, know, leave behind and used"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    op.add_column(
        "code_snapshots", sa.Column("touched_at", sa.DateTime(timezone=True), server_default=now, nullable=False)
    )
    op.create_index(op.f("ix_code_snapshots_touched_at"), "code_snapshots", ["touched_at"], unique=False)
    op.add_column("jobs", sa.Column("code_sha256", sa.LargeBinary(), nullable=True))
    op.create_foreign_key(
        op.f("fk_jobs_team_id_code_sha256_code_snapshots"),
        "jobs",
        "code_snapshots",
        ["team_id", "code_sha256"],
        ["team_id", "sha256"],
    )
    op.create_index(
        "ix_jobs_code",
        "jobs",
        ["team_id", "code_sha256", "number"],
        unique=False,
        postgresql_where=sa.text("code_sha256 IS NOT NULL"),
    )
    op.add_column("attempts", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("peak_gpu_memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("cpu_seconds", sa.Double(), nullable=True))
    op.add_column(
        "attempts",
        sa.Column("software", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.create_table(
        "secrets",
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_secrets_created_by_users")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_secrets_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", "name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "job_datasets",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_job_datasets_dataset_id_datasets")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_job_datasets_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_number", "name", name=op.f("pk_job_datasets")),
    )
    op.create_index(op.f("ix_job_datasets_dataset_id"), "job_datasets", ["dataset_id"], unique=False)
    op.create_table(
        "outputs",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_outputs_bytes_positive")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_outputs_attempt_id_attempts")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_outputs_blob_id_blobs")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_outputs_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_number", "path", name=op.f("pk_outputs")),
    )
    op.create_index(op.f("ix_outputs_attempt_id"), "outputs", ["attempt_id"], unique=False)
    op.create_index(op.f("ix_outputs_blob_id"), "outputs", ["blob_id"], unique=False)
