"""What a worker has to say to whoever looks at it, such as that jobs are not confined there"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("notice", sa.Text(), server_default="", nullable=False))
