"""Alembic's migrations; run by ``stoker.jobs.database.upgrade``."""
