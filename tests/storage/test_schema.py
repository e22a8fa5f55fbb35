"""The schema grows from nothing and is what the models say."""

import pytest
from alembic import command
from sqlalchemy import text

from stoker.errors import OtherSchema, SettingInvalid, StackError
from stoker.jobs import database


def test_an_empty_database_is_upgraded_and_shows_no_drift(empty_database_url: str) -> None:
    database.upgrade(empty_database_url)
    database.upgrade(empty_database_url)  # a second time changes nothing
    command.check(database.config(empty_database_url))  # raises when models and migrations differ
    engine = database.connect(empty_database_url)
    with database.sessions(engine)() as session:
        assert database.ready(session)
    engine.dispose()


def test_a_migration_that_fails_says_so_in_a_line_and_what_was_done_before_it_stays(empty_database_url: str) -> None:
    engine = database.connect(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notifications (id bigint)"))  # in the way of 0006
    with pytest.raises(
        OtherSchema, match=r'yet \(relation "notifications" already exists\): run `stoker migrate` again'
    ):
        database.upgrade(empty_database_url)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0005"
        connection.execute(text("DROP TABLE notifications"))
    database.upgrade(empty_database_url)
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
