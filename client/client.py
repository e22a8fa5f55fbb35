"""The Python client: ``stoker.Client().train(dataset="cifar10", epochs=2).result().accuracy``."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from stoker import settings as settings_module
from stoker.client.access import resolve
from stoker.client.administration import Administration
from stoker.client.job import Job, pages
from stoker.client.own_code import own_document, send_code
from stoker.client.packing import Packed, pack
from stoker.client.programs import check_command, check_notebook
from stoker.client.transport import Transport
from stoker.client.uploads import Progress, Upload
from stoker.errors import NotFound
from stoker.jobs.spec import JobSpec, Resources, parse_spec
from stoker.jobs.spec_fields import dataset_name


class Client:
    """A server and what may be asked of it. Threads may share one; forked processes may not.

    Args:
        url: Of the server; default: STOKER_URL, then what `stoker up` or `stoker login` wrote.
        token: Default: STOKER_TOKEN, then the one written beside that address.

    Raises:
        NoServer: No address is known.
        InvalidInput: The address is none, or a STOKER_* variable is wrong.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self.access = resolve(settings_module.load(os.environ), url, token)
        self.url = self.access.url
        self._transport = Transport(self.access)
        self.administration = Administration(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def submit(self, spec: Mapping[str, Any] | JobSpec, *, key: str | None = None) -> Job:
        """Queue a job.

        Args:
            spec: Version 1, as in YAML and HTTP; it is checked here first.
            key: Idempotency-Key: the same key and spec give the same job. Default: one of its own for this call,
                so that a retry after a broken connection submits nothing twice.

        Raises:
            DocumentInvalid: One or more fields are wrong; nothing was sent.
            InvalidInput, NotFound, Unrunnable: The server refused it.
        """
        document = spec.document() if isinstance(spec, JobSpec) else dict(spec)
        parse_spec(document)
        return Job(self._transport, self._transport.post("/jobs", document, key=key or uuid.uuid4().hex))

    def train(self, *, key: str | None = None, **fields: Any) -> Job:
        """Queue a training with a built-in recipe: ``train(dataset="cifar10", model="fast", epochs=2, name="a")``.

        Fields of the job, of its `resources` and of its `train` section are all given by their own name.
        Raises what ``submit`` raises.
        """
        return self.submit(train_document(fields), key=key)

    def run(
        self,
        command: Sequence[str],
        *,
        code: str | os.PathLike[str] = ".",
        key: str | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Job:
        """Queue a program of one's own: ``run(["python", "train.py"], gpus=1, variables={"A": "b"})``.

        Fields of the job, of its `resources` and of its `environment` are all given by their own name.

        Args:
            command: Program and arguments; it starts in the root of the code.
            code: The folder that is carried along, as by `stoker run`.
            key: As of ``submit``.
            progress: Called with (bytes sent, bytes in all) while the code is sent.

        Raises:
            InvalidInput: The program, the folder or a field cannot be used; what ``submit`` raises too.
        """
        packed = pack(Path(code), settings_module.load(os.environ).code_limit_bytes)
        check_command(packed, list(command))
        document = own_document("script", {"command": list(command)}, packed, fields)
        parse_spec(document)
        self.send_code(packed, progress=progress)
        return self.submit(document, key=key)

    def notebook(
        self,
        path: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        code: str | os.PathLike[str] = ".",
        key: str | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Job:
        """Queue a notebook: ``notebook("tutorial.ipynb", {"lr": 0.01})``; ``path`` is inside ``code``.

        The rest is as of ``run``.
        """
        packed = pack(Path(code), settings_module.load(os.environ).code_limit_bytes)
        check_notebook(packed, path)
        document = own_document("notebook", {"path": path, "parameters": dict(parameters or {})}, packed, fields)
        parse_spec(document)
        self.send_code(packed, progress=progress)
        return self.submit(document, key=key)

    def send_code(self, packed: Packed, *, progress: Progress | None = None) -> dict[str, Any]:
        """Store code, unless the server has it; returns digest, files and bytes."""
        return send_code(self._transport, packed, progress)

    def job(self, which: int | str) -> Job:
        """Find a job by its number, or the latest one by its name.

        Raises NotFound.
        """
        text = str(which)
        if text.isascii() and text.isdecimal():
            return Job(self._transport, self._transport.get(f"/jobs/{text}"))
        for job in self.jobs(name=text, limit=1):
            return job.refresh()  # a list leaves out why a job waits
        raise NotFound("job", repr(text), "`stoker ps -a` lists all")

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        owner: str | None = None,
        team: str | None = None,
        tag: str | None = None,
        name: str | None = None,
        limit: int = 50,
    ) -> Iterator[Job]:
        """Yield the jobs that match, the latest first; ``limit`` is what one request fetches."""
        for item in pages(
            self._transport, "/jobs", state=state, owner=owner, team=team, tag=tag, name=name, limit=limit
        ):
            yield Job(self._transport, item)

    def queue(self, limit: int = 50) -> dict[str, Any]:
        """What waits, in its order (items), how shares stand (teams), how good past estimates were (estimates)."""
        answer: dict[str, Any] = self._transport.get("/queue", limit=limit)
        return answer

    def plan(self, spec: Mapping[str, Any] | JobSpec) -> dict[str, Any]:
        """What would become of a job if it were submitted now: as ``Job.why``; nothing is stored.

        Raises DocumentInvalid, and Unrunnable for what no worker could ever run.
        """
        document = spec.document() if isinstance(spec, JobSpec) else dict(spec)
        parse_spec(document)
        answer: dict[str, Any] = self._transport.post("/plan", document)
        return answer

    def workers(self) -> list[dict[str, Any]]:
        """List the workers: state, CPUs, memory and devices offered and used."""
        return list(pages(self._transport, "/workers"))

    def steer_worker(self, name: str, verb: Literal["drain", "resume"], *, now: bool = False) -> None:
        """Give a worker no new jobs, or jobs again; a drain ``now`` preempts what runs there.

        Raises Forbidden, NotFound.
        """
        self._transport.ask(f"/workers/{quote(name, safe='')}/{verb}", now=now or None)

    def datasets(self) -> list[dict[str, Any]]:
        """List the data sets that were uploaded."""
        return list(pages(self._transport, "/datasets"))

    def upload_dataset(
        self, name: str, path: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Store a zip, a tar or a folder of class folders (`train/CLASS/*.jpg`, `test/CLASS/*.jpg`) under a name.

        The bytes are read twice, for their digest and for the way; what the server has under that name already is
        not sent again. A folder travels as a tar made on the fly: hidden files are left out, links refused.

        Args:
            name: a-z 0-9 . _ -
            path: The archive or folder.
            progress: Called with (bytes sent, bytes in all).

        Raises:
            InvalidInput: The name or the path cannot be used, or the server refused the content.
        """
        upload = Upload.of(Path(path))
        digest, team = upload.sha256(), self.whoami()["team"]
        for known in pages(self._transport, "/datasets", name=dataset_name(name)):
            if (known["digest"], known["team"]) == (digest, team):  # an administrator sees those of every team
                return known
        made: dict[str, Any] = self._transport.upload(
            "/datasets",
            upload.pieces(progress),
            content_type=upload.content_type,
            size=upload.size,
            name=name,
            sha256=digest.removeprefix("sha256:"),
        )
        return made

    def secrets(self) -> list[dict[str, Any]]:
        """List the secrets of one's team: name, owner, created_at; never a value."""
        return list(self._transport.get("/secrets")["items"])

    def set_secret(self, name: str, value: str) -> dict[str, Any]:
        """Keep a value for the team's jobs that name it; the same name again replaces it."""
        made: dict[str, Any] = self._transport.send("POST", "/secrets", {"name": name, "value": value})
        return made

    def remove_secret(self, name: str) -> None:
        """Forget a secret. Raises NotFound."""
        self._transport.send("DELETE", f"/secrets/{quote(name, safe='')}")

    def whoami(self) -> dict[str, Any]:
        """Return the user, team and role behind the token."""
        answer: dict[str, Any] = self._transport.get("/whoami")
        return answer


def train_document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Sort flat fields into a spec: the job's own, its resources, and the recipe (what is unknown goes there)."""
    document: dict[str, Any] = {"version": 1, "kind": "train"}
    train: dict[str, Any] = {}
    resources: dict[str, Any] = {}
    for name, value in fields.items():
        if name in JobSpec.model_fields and name not in {"train", "kind"}:
            document[name] = value
        elif name in Resources.model_fields:
            resources[name] = value
        else:
            train[name] = value
    if resources:
        document["resources"] = {**resources, **document.get("resources", {})}
    return document | {"train": train}
