"""From a URL to an engine, to sessions, to the newest schema."""

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import OtherSchema, SettingInvalid, Unavailable

DRIVER = "postgresql+psycopg"
IDLE_IN_TRANSACTION = "5s"  # a process that is frozen meanwhile holds no lock for longer


def connect(url: str, *, pool_size: int = 5, application: str = "stoker") -> Engine:
    """Make an engine whose every wait has an end.

    Statements end after 30 s, waits for locks after 10 s, idle transactions after 5 s, and a peer that went
    silent is noticed after 5 s: a frozen process holds nobody up for long.

    Raises SettingInvalid: the URL is not one of PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername != DRIVER:
        raise SettingInvalid(
            "STOKER_DATABASE_URL", "is not a PostgreSQL URL", f"write {DRIVER}://user:password@host/name"
        )
    options = {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION,
        "timezone": "UTC",
    }
    return create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=5,
        hide_parameters=True,  # what users wrote does not belong into logs
        pool_pre_ping=False,  # a lost connection is an error like any other; a ping would cost each transaction 0.2 ms
        connect_args={
            "connect_timeout": 3,
            "tcp_user_timeout": 5000,
            "keepalives_idle": 5,
            "application_name": application,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        },
    )


_REFUSALS = {  # before a connection stands, there is no code but the text
    "authentication failed": ("its user or password is refused by the database", "write those that it was made with"),
    "no encryption": ("the database refuses connections without TLS", "add ?sslmode=verify-full&sslrootcert=FILE"),
    "does not support SSL": ("the database speaks no TLS", "switch it on there, or leave sslmode out"),
    "certificate verify failed": ("the database's certificate is not of that authority", "name its own in sslrootcert"),
    "does not match host name": ("the database's certificate is for another host", "write the host that it names"),
    "root certificate file": ("the file of sslrootcert cannot be read", "name the authority's certificate there"),
}


def refusal(error: DBAPIError) -> SettingInvalid | None:
    """What to say when nobody is let in with this URL, ever; None: another fault, which may pass."""
    said = str(error.orig)
    for words, (problem, fix) in _REFUSALS.items():
        if words in said:
            return SettingInvalid("STOKER_DATABASE_URL", problem, fix)
    return None


def sessions(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions; ``with factory() as session: …; session.commit()``."""
    return sessionmaker(engine, expire_on_commit=False)


def config(url: str) -> Config:
    """What Alembic is told, instead of an ini file."""
    told = Config()
    told.set_main_option("script_location", "stoker:migrations")
    told.attributes["url"] = url
    return told


def upgrade(url: str) -> None:
    """Bring the schema to the newest version; safe to call from several processes at once.

    Each migration is a transaction of its own, so that what was done stays where a later one fails.

    Raises OtherSchema: the data was written by a newer Stoker, or a migration failed; SettingInvalid, Unavailable:
    nobody is let in.
    """
    engine = connect(url)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise refusal(error) or Unavailable("the database (STOKER_DATABASE_URL)") from None
    finally:
        engine.dispose()
    if current and _is_newer(current):
        raise _newer(current)
    try:
        command.upgrade(config(url), "head")
    except DBAPIError as error:
        said = (str(error.orig).splitlines() or [""])[0]
        raise OtherSchema(f"the tables are not up to date yet ({said}): run `stoker migrate` again") from error


def newest() -> str:
    """The schema revision that this code works with."""
    head = ScriptDirectory.from_config(config("")).get_current_head()
    assert head is not None  # noqa: S101 - there is always a first migration
    return head


def refuse_other_schema(session: Session) -> None:
    """Raise OtherSchema unless the tables are those that this code works with."""
    try:
        found = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    except ProgrammingError:
        found = None
    if found is None:
        raise OtherSchema("the database has no tables yet: run `stoker migrate`")
    if _is_newer(found):
        raise _newer(found)
    if found != newest():
        raise OtherSchema(f"the database has schema {found}, this Stoker needs {newest()}: run `stoker migrate`")


def _is_newer(revision: str) -> bool:
    known = ScriptDirectory.from_config(config("")).walk_revisions()
    return revision not in {one.revision for one in known}


def _newer(revision: str) -> OtherSchema:
    return OtherSchema(f"the database has schema {revision}, made by a newer Stoker; upgrade this one")


def ready(session: Session) -> bool:
    """Whether the database answers and has the schema that this code works with."""
    found = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found == newest()
