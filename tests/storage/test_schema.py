"""The schema grows from nothing and is what the models say."""

import pytest
from alembic import command
from sqlalchemy import text

from stoker.errors import SettingInvalid, StackError
from stoker.jobs import database


def test_an_empty_database_is_upgraded_and_shows_no_drift(empty_database_url: str) -> None:
    database.upgrade(empty_database_url)
    database.upgrade(empty_database_url)  # a second time changes nothing
    command.check(database.config(empty_database_url))  # raises when models and migrations differ
    engine = database.connect(empty_database_url)
    with database.sessions(engine)() as session:
        assert database.ready(session)
    engine.dispose()


def test_data_of_a_newer_version_is_refused(database_url: str) -> None:
    engine = database.connect(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'zzzz'"))
    engine.dispose()
    with pytest.raises(StackError, match="schema zzzz, made by a newer Stoker"):
        database.upgrade(database_url)


@pytest.mark.parametrize("url", ["sqlite://", "postgresql://u:secret@h/d", "nonsense", "mysql://u:secret@h/d"])
def test_other_databases_are_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(SettingInvalid, match="STOKER_DATABASE_URL") as refused:
        database.connect(url)
    assert "secret" not in str(refused.value)
