"""The first tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("weight > 0", name=op.f("ck_teams_weight_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name", name=op.f("uq_teams_name")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cpus_milli", sa.BigInteger(), nullable=False),
        sa.Column("cpus_used_milli", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("memory_used_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts_limit", sa.BigInteger(), nullable=False),
        sa.Column("attempts_used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cpu_model", sa.Text(), nullable=False),
        sa.Column("draining", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("suspect_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspect_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("attempts_used BETWEEN 0 AND attempts_limit", name=op.f("ck_workers_attempts_within")),
        sa.CheckConstraint("cpus_used_milli BETWEEN 0 AND cpus_milli", name=op.f("ck_workers_cpus_within")),
        sa.CheckConstraint("memory_used_bytes BETWEEN 0 AND memory_bytes", name=op.f("ck_workers_memory_within")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("name", name=op.f("uq_workers_name")),
    )
    op.create_table(
        "blobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_blobs_bytes_positive")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_blobs_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
        sa.UniqueConstraint("team_id", "sha256", name=op.f("uq_blobs_team_id_sha256")),
    )
    op.create_table(
        "chunks",
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(data) BETWEEN 1 AND 1048576", name=op.f("ck_chunks_data_length")),
        sa.CheckConstraint("octet_length(sha256) = 32", name=op.f("ck_chunks_sha256_length")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_chunks_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", "sha256", name=op.f("pk_chunks")),
    )
    op.create_index(op.f("ix_chunks_touched_at"), "chunks", ["touched_at"], unique=False)
    op.create_table(
        "devices",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("capacity_milli", sa.BigInteger(), nullable=False),
        sa.Column("used_milli", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarantine_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("used_milli BETWEEN 0 AND capacity_milli", name=op.f("ck_devices_used_within")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_devices_worker_id_workers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
        sa.UniqueConstraint("worker_id", "uuid", name=op.f("uq_devices_worker_id_uuid")),
    )
    op.create_table(
        "incarnations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.Double(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_incarnations_worker_id_workers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incarnations")),
    )
    op.create_index(op.f("ix_incarnations_worker_id"), "incarnations", ["worker_id"], unique=False)
    op.create_index(
        "uq_incarnations_open",
        "incarnations",
        ["worker_id"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("role", sa.Text(), server_default="member", nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('member', 'admin')", name=op.f("ck_users_role_known")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_users_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_index(op.f("ix_users_team_id"), "users", ["team_id"], unique=False)
    op.create_table(
        "blob_chunks",
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["blobs.id"], name=op.f("fk_blob_chunks_blob_id_blobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("blob_id", "position", name=op.f("pk_blob_chunks")),
    )
    op.create_index(op.f("ix_blob_chunks_team_id_sha256"), "blob_chunks", ["team_id", "sha256"], unique=False)
    op.create_table(
        "code_snapshots",
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("summary", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_code_snapshots_blob_id_blobs")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_code_snapshots_created_by_users")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_code_snapshots_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", "sha256", name=op.f("pk_code_snapshots")),
    )
    op.create_index(op.f("ix_code_snapshots_blob_id"), "code_snapshots", ["blob_id"], unique=False)
    op.create_table(
        "datasets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("summary", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_datasets_blob_id_blobs")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_datasets_created_by_users")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_datasets_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_blob_id"), "datasets", ["blob_id"], unique=False)
    op.create_index(op.f("ix_datasets_team_id_name_id"), "datasets", ["team_id", "name", "id"], unique=False)
    op.create_table(
        "sprites",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("channels", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_sprites_blob_id_blobs")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_sprites_team_id_teams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sprites")),
        sa.UniqueConstraint("team_id", "sha256", name=op.f("uq_sprites_team_id_sha256")),
    )
    op.create_index(op.f("ix_sprites_blob_id"), "sprites", ["blob_id"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(sha256) = 32", name=op.f("ck_tokens_sha256_length")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("team_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("shape", sa.LargeBinary(), nullable=False),
        sa.Column("dataset_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_by", sa.Text(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retries_used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("losses_counted_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failure", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("latest_checkpoint_id", sa.BigInteger(), nullable=True),
        sa.Column("pinned_machine", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(failure IS NOT NULL) = (state = 'failed')", name=op.f("ck_jobs_failure")),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled'))", name=op.f("ck_jobs_finished")
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'queued', 'placed', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 3", name=op.f("ck_jobs_priority_known")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_jobs_dataset_id_datasets")),
        sa.ForeignKeyConstraint(
            ["latest_checkpoint_id"],
            ["checkpoints.id"],
            name="fk_jobs_latest_checkpoint_id_checkpoints",
            use_alter=True,
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_jobs_owner_id_users")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_jobs_team_id_teams")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_dataset_id"), "jobs", ["dataset_id"], unique=False)
    op.create_index(op.f("ix_jobs_latest_checkpoint_id"), "jobs", ["latest_checkpoint_id"], unique=False)
    op.create_index(
        "ix_jobs_live",
        "jobs",
        ["state"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'placed', 'running')"),
    )
    op.create_index("ix_jobs_name", "jobs", ["team_id", "name", "number"], unique=False)
    op.create_index(op.f("ix_jobs_owner_id"), "jobs", ["owner_id"], unique=False)
    op.create_index(op.f("ix_jobs_team_id"), "jobs", ["team_id"], unique=False)
    op.create_index(
        "ix_jobs_turn",
        "jobs",
        ["team_id", "priority", "shape", "number"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column("incarnation_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("cpus_milli", sa.BigInteger(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("resumed_from_id", sa.BigInteger(), nullable=True),
        sa.Column("resumed_step", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("preempt_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("preempt_reason", sa.Text(), nullable=True),
        sa.Column("failure", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("progress", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("progressed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ran_seconds", sa.Double(), nullable=True),
        sa.Column("last_batch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("machine", sa.Text(), nullable=True),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("send_error", sa.Text(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_step_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(ended_at IS NOT NULL) = (state = 'ended')", name=op.f("ck_attempts_ended_at_end")),
        sa.CheckConstraint("(outcome IS NOT NULL) = (state = 'ended')", name=op.f("ck_attempts_outcome_at_end")),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'cancelled', 'preempted', 'lost', 'not_claimed')",
            name=op.f("ck_attempts_outcome_known"),
        ),
        sa.CheckConstraint("state IN ('placed', 'running', 'ended')", name=op.f("ck_attempts_state_known")),
        sa.ForeignKeyConstraint(
            ["incarnation_id"], ["incarnations.id"], name=op.f("fk_attempts_incarnation_id_incarnations")
        ),
        sa.ForeignKeyConstraint(["job_number"], ["jobs.number"], name=op.f("fk_attempts_job_number_jobs")),
        sa.ForeignKeyConstraint(
            ["resumed_from_id"],
            ["checkpoints.id"],
            name=op.f("fk_attempts_resumed_from_id_checkpoints"),
            use_alter=True,
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_attempts_worker_id_workers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_number", "ordinal", name=op.f("uq_attempts_job_number_ordinal")),
    )
    op.create_index(
        "ix_attempts_live_incarnation",
        "attempts",
        ["incarnation_id"],
        unique=False,
        postgresql_where=sa.text("state <> 'ended'"),
    )
    op.create_index(op.f("ix_attempts_resumed_from_id"), "attempts", ["resumed_from_id"], unique=False)
    op.create_index(op.f("ix_attempts_worker_id"), "attempts", ["worker_id"], unique=False)
    op.create_index(
        "uq_attempts_live", "attempts", ["job_number"], unique=True, postgresql_where=sa.text("state <> 'ended'")
    )
    op.create_table(
        "dependencies",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("parent_number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("job_number > parent_number", name=op.f("ck_dependencies_acyclic")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_dependencies_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["parent_number"], ["jobs.number"], name=op.f("fk_dependencies_parent_number_jobs")),
        sa.PrimaryKeyConstraint("job_number", "parent_number", name=op.f("pk_dependencies")),
    )
    op.create_index(op.f("ix_dependencies_parent_number"), "dependencies", ["parent_number"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_number"],
            ["jobs.number"],
            name=op.f("fk_idempotency_keys_job_number_jobs"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_idempotency_keys_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_index(op.f("ix_idempotency_keys_job_number"), "idempotency_keys", ["job_number"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("milli", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("milli > 0", name=op.f("ck_reservations_milli_positive")),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_reservations_device_id_devices")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_reservations_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_number", "device_id", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_device_id"), "reservations", ["device_id"], unique=False)
    op.create_table(
        "allocations",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.BigInteger(), nullable=False),
        sa.Column("milli", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("milli > 0", name=op.f("ck_allocations_milli_positive")),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempts.id"], name=op.f("fk_allocations_attempt_id_attempts"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"], name=op.f("fk_allocations_device_id_devices")),
        sa.PrimaryKeyConstraint("attempt_id", "device_id", name=op.f("pk_allocations")),
    )
    op.create_index(op.f("ix_allocations_device_id"), "allocations", ["device_id"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("blob_id", sa.BigInteger(), nullable=True),
        sa.Column("metrics", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("damaged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_checkpoints_attempt_id_attempts")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_checkpoints_blob_id_blobs")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_checkpoints_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
    )
    op.create_index(op.f("ix_checkpoints_attempt_id"), "checkpoints", ["attempt_id"], unique=False)
    op.create_index(op.f("ix_checkpoints_blob_id"), "checkpoints", ["blob_id"], unique=False)
    op.create_index("ix_checkpoints_job", "checkpoints", ["job_number", "step"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_events_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_events_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_events_worker_id_workers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_job", "events", ["job_number", "id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("holder_id", sa.Uuid(), nullable=False),
        sa.Column("incarnation_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_leases_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["incarnation_id"], ["incarnations.id"], name=op.f("fk_leases_incarnation_id_incarnations")
        ),
        sa.PrimaryKeyConstraint("holder_id", name=op.f("pk_leases")),
        sa.UniqueConstraint("attempt_id", name=op.f("uq_leases_attempt_id")),
    )
    op.create_index(op.f("ix_leases_expires_at"), "leases", ["expires_at"], unique=False)
    op.create_index(op.f("ix_leases_incarnation_id"), "leases", ["incarnation_id"], unique=False)
    op.create_table(
        "log_chunks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_log_chunks_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_log_chunks_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_chunks")),
    )
    op.create_index(op.f("ix_log_chunks_attempt_id"), "log_chunks", ["attempt_id"], unique=False)
    op.create_index("ix_log_chunks_job", "log_chunks", ["job_number", "id"], unique=False)
    op.create_table(
        "metric_segments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.LargeBinary(), nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("first_step <= last_step", name=op.f("ck_metric_segments_steps_ordered")),
        sa.CheckConstraint("octet_length(values) = points * 8", name=op.f("ck_metric_segments_values_length")),
        sa.CheckConstraint(
            "points > 0 AND octet_length(steps) = points * 8", name=op.f("ck_metric_segments_steps_length")
        ),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_metric_segments_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_metric_segments_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric_segments")),
    )
    op.create_index(op.f("ix_metric_segments_attempt_id"), "metric_segments", ["attempt_id"], unique=False)
    op.create_index("ix_metric_segments_job", "metric_segments", ["job_number", "key", "first_step"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.Column("classes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("sprite_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("octet_length(packed) = count * 8", name=op.f("ck_predictions_packed_length")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_predictions_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_predictions_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sprite_id"], ["sprites.id"], name=op.f("fk_predictions_sprite_id_sprites")),
        sa.PrimaryKeyConstraint("job_number", name=op.f("pk_predictions")),
        sa.UniqueConstraint("attempt_id", name=op.f("uq_predictions_attempt_id")),
    )
    op.create_index(op.f("ix_predictions_sprite_id"), "predictions", ["sprite_id"], unique=False)
    op.create_table(
        "results",
        sa.Column("job_number", sa.BigInteger(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("document", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("checkpoint_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("accuracy BETWEEN 0 AND 1", name=op.f("ck_results_accuracy_range")),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_results_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_results_checkpoint_id_checkpoints")
        ),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name=op.f("fk_results_job_number_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_number", name=op.f("pk_results")),
        sa.UniqueConstraint("attempt_id", name=op.f("uq_results_attempt_id")),
    )
    op.create_index(op.f("ix_results_checkpoint_id"), "results", ["checkpoint_id"], unique=False)
    # the two tables refer to each other, so these come last
    op.create_foreign_key(
        op.f("fk_jobs_latest_checkpoint_id_checkpoints"), "jobs", "checkpoints", ["latest_checkpoint_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("fk_attempts_resumed_from_id_checkpoints"), "attempts", "checkpoints", ["resumed_from_id"], ["id"]
    )
    # chunks are compressed already or do not compress: stored as they are, reads are 3 times faster
    op.execute("ALTER TABLE chunks ALTER COLUMN data SET STORAGE EXTERNAL")
    op.execute("CREATE SEQUENCE dispatch_wishes AS bigint CYCLE")  # counts wishes for a pass of the dispatcher
