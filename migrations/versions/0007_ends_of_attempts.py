"""What became of a worker's attempts lately is found by an index"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_worker_ended", "attempts", ["worker_id", "ended_at"])
    op.drop_index("ix_attempts_worker_id", "attempts")
