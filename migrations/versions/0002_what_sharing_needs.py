"""What sharing needs: pools, quotas, what was used, and reservations of places instead of devices"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pools",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fractions", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pools")),
    )
    op.execute("INSERT INTO pools (name) VALUES ('default')")
    op.add_column("workers", sa.Column("pool", sa.Text(), server_default="default", nullable=False))
    op.create_foreign_key(op.f("fk_workers_pool_pools"), "workers", "pools", ["pool"], ["name"])
    op.create_index(op.f("ix_workers_pool"), "workers", ["pool"], unique=False)
    op.create_table(
        "worker_data",
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_worker_data_worker_id_workers")),
        sa.PrimaryKeyConstraint("worker_id", "data", name=op.f("pk_worker_data")),
    )
    op.create_table(
        "quotas",
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("gpus_milli", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cpus_milli", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("gpus_limit_milli", sa.BigInteger(), nullable=True),
        sa.Column("cpus_limit_milli", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("gpus_milli >= 0 AND cpus_milli >= 0", name=op.f("ck_quotas_guarantee_positive")),
        sa.CheckConstraint("gpus_limit_milli >= gpus_milli", name=op.f("ck_quotas_gpus_limit_above")),
        sa.CheckConstraint("cpus_limit_milli >= cpus_milli", name=op.f("ck_quotas_cpus_limit_above")),
        sa.ForeignKeyConstraint(["pool"], ["pools.name"], name=op.f("fk_quotas_pool_pools")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_quotas_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", "pool", name=op.f("pk_quotas")),
    )
    op.create_table(
        "usages",
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("device_seconds >= 0", name=op.f("ck_usages_device_seconds_positive")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_usages_team_id_teams")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_usages_user_id_users")),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_usages")),
    )
    op.create_index(op.f("ix_usages_user_id"), "usages", ["user_id"], unique=False)
    _jobs()
    op.drop_table("reservations")  # nothing ever wrote one
    op.create_table(
        "reservations",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("devices", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_reservations_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_reservations_worker_id_workers")),
        sa.PrimaryKeyConstraint("job_number", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_worker_id"), "reservations", ["worker_id"], unique=False)


def _jobs() -> None:
    op.add_column("jobs", sa.Column("own_order", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("preempted_at", sa.DateTime(timezone=True), nullable=True))
    # A shape now says all that decides where a job fits, the machine that it goes on on exactly too.
    op.execute(
        "UPDATE jobs SET shape = substring(sha256(shape || convert_to(pinned_machine, 'UTF8')) FOR 16)"
        " WHERE pinned_machine IS NOT NULL"
    )
    op.drop_index("ix_jobs_turn", "jobs")
    op.create_index(
        "ix_jobs_turn",
        "jobs",
        ["team_id", "owner_id", "priority", "shape", "own_order", "number"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND NOT held AND cancel_requested_at IS NULL"),
    )
    op.add_column("attempts", sa.Column("gpus_milli", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("attempts", sa.Column("preempt_for", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_attempts_preempt_for_jobs"), "attempts", "jobs", ["preempt_for"], ["number"])
    op.execute(
        "UPDATE attempts SET gpus_milli = held.milli FROM (SELECT attempt_id, sum(milli) AS milli FROM allocations"
        " GROUP BY attempt_id) held WHERE held.attempt_id = attempts.id"
    )
