"""Which version of the protocol a job was accepted with, and a worker speaks"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("incarnations", "jobs"):
        op.add_column(table, sa.Column("protocol", sa.BigInteger(), server_default="1", nullable=False))
