"""Run migrations over one connection, one process at a time. There is no alembic.ini: the URL comes from the caller."""

from alembic import context
from sqlalchemy import text

from stoker.jobs.database import connect
from stoker.jobs.models import Base

LOCK = 0x53544F4B4D  # any constant; only migrations take it

engine = connect(context.config.attributes["url"], application="stoker migrate")
try:
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '60s'"))
        connection.execute(text("SET statement_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})  # until the engine is disposed of
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,  # workers go on meanwhile, and lock tables in an order of their own
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
