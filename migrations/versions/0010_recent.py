"""What started and ended lately is found by an index, however many jobs there were: /metrics asks every few seconds"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, name, column in (
        ("attempts", "ix_attempts_ended", "ended_at"),
        ("jobs", "ix_jobs_started", "started_at"),
    ):
        op.create_index(name, table, [column], unique=False, postgresql_where=sa.text(f"{column} IS NOT NULL"))
