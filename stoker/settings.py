"""One frozen ``Settings``, read from STOKER_* variables at an entry point and passed down from there."""

import dataclasses
import difflib
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stoker.errors import SettingInvalid
from stoker.quoting import quoted

PREFIX = "STOKER_"


def default_home() -> Path:
    """Where the embedded stack keeps its data: /var/lib/stoker for root, ~/.stoker for anybody else."""
    return Path("/var/lib/stoker") if os.geteuid() == 0 else Path.home() / ".stoker"


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set. A field ``x_y`` is the variable STOKER_X_Y; a secret also comes from a file, STOKER_X_Y_FILE."""

    database_url: str | None = field(default=None, metadata={"secret": True})  # postgresql+psycopg://user:pw@host/db
    broker_url: str | None = field(default=None, metadata={"secret": True})  # redis:// rediss:// redis+socket://
    home: Path = field(default_factory=default_home)
    url: str | None = None  # of the API, for client and CLI
    token: str | None = field(default=None, metadata={"secret": True})
    secret_key: str | None = field(default=None, metadata={"secret": True})  # under which jobs' secrets are kept
    log_level: str = "info"  # debug | info | warning | error

    api_host: str = "127.0.0.1"
    api_port: int = 0  # 0: a free one
    flower_port: int = 0
    flower_url: str | None = None  # where users reach Flower, for links
    flower_basic_auth: str | None = field(default=None, metadata={"secret": True})  # user:password
    public_url: str | None = None  # where users reach the API, for links in notifications
    metrics_token: str | None = field(default=None, metadata={"secret": True})  # lets Prometheus read /metrics
    notify: str = field(default="listed", metadata={"choices": ("none", "listed", "public")})  # whom jobs may notify
    notify_allow: str | None = None  # hosts, networks and @domains beyond what is public
    notify_key: str | None = field(default=None, metadata={"secret": True})  # signs where a team has no NOTIFY_KEY
    smtp_url: str | None = field(default=None, metadata={"secret": True})  # smtp://user:password@host:587
    smtp_from: str | None = None  # the address that mail comes from
    upload_limit_bytes: int = 20 * 10**9
    code_limit_bytes: int = 200 * 10**6  # of a job's own code; read by clients and by the API

    worker_name: str | None = None  # stable name; default: the host's
    worker_pool: str = "default"  # workers of one pool are shared out together
    worker_cpus: float = 0  # offered to jobs; 0: all that this process may use
    worker_memory_bytes: int = 0  # 0: 90 % of the host's
    worker_attempts: int = 16  # most attempts at once
    cache_bytes: int = 50 * 10**9  # most that a worker's cache holds, apart from what is in use; 0: no limit
    worker_devices: str = "auto"  # auto: what NVML lists; none; fake:FILE.json for tests
    confinement: str = field(default="required", metadata={"choices": ("required", "best-effort")})  # of jobs' code
    network: str = field(default="open", metadata={"choices": ("none", "open")})  # the most that a job may ask for
    environments: str = field(
        default="allowed", metadata={"choices": ("allowed", "forbidden")}
    )  # whether jobs get them
    environment_seconds: float = 1800.0  # most that making one may take
    environment_bytes: int = 10 * 10**9  # most that one may hold
    output_bytes: int = 10 * 10**9  # most that is kept of one attempt's output files
    memory_limit: str = field(default="kill", metadata={"choices": ("kill", "record")})  # what resources.memory is
    readable: str | None = None  # folders of the host that jobs may read, separated by colons

    lease_seconds: float = 15.0  # a silent worker's jobs are taken away after this
    claim_seconds: float = 15.0  # a placed job that nobody claims goes back to the queue
    resend_seconds: float = 3.0  # its message is sent again when unclaimed for so long
    dispatch_seconds: float = 2.0  # the dispatcher looks at least so often
    batch_seconds: float = 0.5  # progress, metrics and logs are written at most so often
    cancel_grace_seconds: float = 3.0  # between SIGTERM and SIGKILL
    preempt_grace_seconds: float = 60.0
    stop_grace_seconds: float = 8.0

    demo_data: Path | None = None  # a folder or archive of class folders, for `make demo`

    @property
    def renew_seconds(self) -> float:
        """How often a lease is renewed."""
        return self.lease_seconds / 5

    @property
    def cache(self) -> Path:
        """Decoded data sets and downloads; may be deleted at any time while no job runs."""
        return self.home / "cache"

    @property
    def readable_folders(self) -> tuple[str, ...]:
        """The folders of ``readable``, absolute."""
        return tuple(folder for folder in (self.readable or "").split(":") if folder)


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings from an environment.

    Raises SettingInvalid for an unknown STOKER_* name (it names the nearest known one), a value of the wrong
    type or range, a secret file that cannot be read or that others may read.
    """
    fields = {PREFIX + f.name.upper(): f for f in dataclasses.fields(Settings)}
    hints = typing.get_type_hints(Settings)
    values: dict[str, object] = {}
    for name, given in environ.items():
        text = given
        if not name.startswith(PREFIX):
            continue
        if name in fields:
            setting = fields[name]
        elif name.endswith("_FILE") and fields.get(name[:-5]) and fields[name[:-5]].metadata.get("secret"):
            setting, text = fields[name[:-5]], _read_secret(name, Path(text))
        else:
            near = difflib.get_close_matches(name, fields, n=1)
            raise SettingInvalid(name, "no such setting", f"did you mean {near[0]}?" if near else "see .env.example")
        if text:
            values[setting.name] = _parse(name, text, hints[setting.name])
            _check(name, text, setting.metadata.get("choices"))
    return Settings(**values)  # type: ignore[arg-type]


def _check(name: str, text: str, choices: tuple[str, ...] | None) -> None:
    if choices and text not in choices:
        raise SettingInvalid(name, f"{quoted(text)} is not known", f"use {' or '.join(choices)}")
    if name == "STOKER_READABLE" and not all(folder.startswith("/") for folder in text.split(":") if folder):
        raise SettingInvalid(
            name, f"{quoted(text)} names a folder that is not absolute", "separate /folder and /other by :"
        )


def _read_secret(name: str, path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingInvalid(name, f"cannot read {path}: {error}", "name a readable file") from None
    if mode & 0o007:
        raise SettingInvalid(name, f"{path} can be read by everybody", f"chmod o-rwx {path}")
    if not text:
        raise SettingInvalid(name, f"{path} is empty", "write the secret into it")
    return text


def _parse(name: str, text: str, hint: object) -> object:
    kinds = {kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)}
    kind = kinds.pop()
    if kind is Path:
        return Path(text).expanduser().absolute()
    if kind is str:
        return text
    try:
        number = int(text) if kind is int else float(text)
    except ValueError:
        raise SettingInvalid(name, f"{quoted(text)} is not a number", "give a number, without a unit") from None
    if not math.isfinite(number) or number < 0 or (name.endswith("_SECONDS") and not 0.05 <= number <= 86400):
        raise SettingInvalid(name, f"{text} is out of range", "seconds: 0.05 to 86400; other numbers: 0 or more")
    return number
