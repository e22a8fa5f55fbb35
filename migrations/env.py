"""Run migrations over one connection, one process at a time. There is no alembic.ini: the URL comes from the caller."""

from alembic import context
from sqlalchemy import text

from stoker.jobs.database import connect
from stoker.jobs.models import Base

LOCK = 0x53544F4B4D  # any constant; only migrations take it

engine = connect(context.config.attributes["url"], application="stoker migrate")
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True
    )
    with context.begin_transaction():
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
engine.dispose()
