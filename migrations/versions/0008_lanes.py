"""What a pass of the dispatcher reads before any job: whose jobs wait, since when, and what they ask for"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
READY = sa.text("state = 'queued' AND NOT held AND cancel_requested_at IS NULL")


def upgrade() -> None:
    lane = ["team_id", "owner_id", "priority", "queued_at"]
    op.create_index("ix_jobs_lanes", "jobs", lane, unique=False, postgresql_where=READY)
    op.create_index("ix_jobs_shapes", "jobs", ["team_id", "shape"], unique=False, postgresql_where=READY)
