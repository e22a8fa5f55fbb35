"""A team's own script or notebook, as one of the kinds of a job: what it is given, and what its end is worth."""

import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from stoker.jobs.attempts import Ending
from stoker.jobs.claims import ClaimedDataset
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.quantities import parse_every
from stoker.settings import Settings
from stoker.training import cache
from stoker.training.config import Interval, NotebookTask, RunTask
from stoker.training.failure import TrainingFailed
from stoker.workers import execution, own_findings, unpacking
from stoker.workers.environments import Building, Environments
from stoker.workers.findings import FindingsRefused
from stoker.workers.interpreters import Interpreter, of_worker, stoker_on_path
from stoker.workers.orders import Order
from stoker.workers.preparation import Preparation
from stoker.workers.reporting import Report
from stoker.workers.runs import Run
from stoker.workers.storing import Storing
from stoker.workers.supervision import Sight
from stoker.workers.verdict import failed, judge_own_code

TASK = "run.json"  # in the scratch folder; what ``stoker.current_run()`` reads


@dataclass(frozen=True, slots=True)
class Rooms:
    """The folders of one attempt, all in its scratch folder."""

    scratch: Path

    @property
    def work(self) -> Path:
        """A copy of the code, the working directory: what a program writes there harms nobody."""
        return self.scratch / "work"

    @property
    def output(self) -> Path:
        """Whose files are kept."""
        return self.scratch / "output"

    @property
    def data(self) -> Path:
        """With a link for each data set."""
        return self.scratch / "data"

    @property
    def home(self) -> Path:
        """Caches and settings of libraries."""
        return self.scratch / "home"

    @property
    def temporary(self) -> Path:
        """What libraries put aside."""
        return self.scratch / "tmp"

    @property
    def python(self) -> Path:
        """On the interpreter's path: the package stoker and the start-up file, and nothing else of ours."""
        return self.scratch / "python"

    def make(self) -> None:
        """Make them."""
        for room in (self.work, self.output, self.data, self.home, self.temporary, self.python):
            room.mkdir(parents=True)
        for entry in stoker_on_path():
            (self.python / entry.name).symlink_to(entry)


@dataclass(slots=True)
class OwnCode:
    """One attempt at a script or a notebook."""

    preparation: Preparation
    environments: Environments
    settings: Settings
    run: Run
    scratch: Path
    report: Report
    held: ExitStack  # ends with the attempt: what was found in the cache for it stays there until then
    interpreter: Interpreter = field(default_factory=of_worker)
    read_only: list[Path] = field(default_factory=list)  # of the cache

    @property
    def rooms(self) -> Rooms:
        """Its folders."""
        return Rooms(self.scratch)

    def order(self) -> Order:
        """All that the program is started with, once code, data, environment and checkpoint are there.

        Raises Interrupted, AttemptClosed, DataDamaged, NotFound, OSError, and TrainingFailed: it cannot be started.
        """
        claimed, rooms = self.run.claimed, self.rooms
        if claimed.lacks:
            raise TrainingFailed("user_error", claimed.lacks, "set what is missing, then retry")
        rooms.make()
        self._fetch_code()
        for dataset in claimed.datasets:
            self._fetch_dataset(dataset)
        if requirements := claimed.spec.environment.requirements:
            building = Building(self.run, requirements, rooms.work, self._digest, self.scratch, self.report)
            self.interpreter = self.held.enter_context(self.environments.held(building))
        program, argv = self._command()
        (self.scratch / TASK).write_text(json.dumps(self._task().to_document()))
        start = execution.write(self.scratch, str(rooms.work), program, argv, self._variables())
        return Order(
            id=str(self.run.id),
            task={"kind": claimed.spec.kind, "start": start},
            environment={},
            scratch=str(self.scratch),
            title=f"job {claimed.job_number}",
            deadline=self.run.deadline,
            confinement=self.preparation.bounds.confinement(
                self.scratch,
                network=claimed.spec.network == "open",
                cpus=claimed.spec.resources.cpus,
                memory_bytes=claimed.spec.resources.memory,
                read_only=[*self.read_only, *self.interpreter.folders],
                devices=self.preparation.inventory.files(claimed.device_uuids),
            ),
        )

    def ending(self, sight: Sight, storing: Storing) -> Ending:
        """Turn what was seen into an ending. The files that it left are kept whatever that is.

        Raises AttemptClosed, and what the database raises.
        """
        ending = judge_own_code(self.run.asked, sight)
        if ending.outcome is Outcome.SUCCEEDED:
            ending = self._with_findings(ending, sight)
        kept, notes = storing.outputs(self.rooms.output, self.settings.output_bytes)
        for note in notes:
            self.report.note(note)
        return replace(ending, outputs=kept)

    def _with_findings(self, ending: Ending, sight: Sight) -> Ending:
        try:
            found = own_findings.read(self.scratch, sight.result, sight.predictions)
        except FindingsRefused as refusal:
            return failed("user_error", f"its result was refused: {refusal}")
        for note in found.notes:
            self.report.note(note)
        return replace(ending, reason=found.summary, result=found.document, predictions=found.predictions)

    @property
    def _digest(self) -> str:
        code = self.run.claimed.code
        return code.sha256 if code else ""

    def _fetch_code(self) -> None:
        code = self.run.claimed.code
        if code is None:
            raise TrainingFailed("data_missing", "its code is not there any more", "submit it again")
        archive = self.settings.cache / "code" / f"{code.sha256}.tar"
        self.preparation.fetch(archive, code.blob_id, code.blob_sha256, self.run)
        with cache.locked(archive, self.run.check, shared=True):
            unpacking.unpack_code(archive, self.rooms.work, self.run.check)

    def _fetch_dataset(self, dataset: ClaimedDataset) -> None:
        """Let a data set lie in the cache, unpacked once for all jobs, and link to it."""
        if dataset.blob_id is None or dataset.sha256 is None:
            raise TrainingFailed(
                "data_missing",
                f"{dataset.name} is built in: only recipes of Stoker's own read it",
                f"upload it under a name of yours (stoker dataset add), or load it in the script: torchvision has "
                f"{dataset.name}, which needs network: open",
            )
        tree = self.settings.cache / "trees" / dataset.sha256
        tree.parent.mkdir(parents=True, exist_ok=True)
        unpack = partial(self._unpack_dataset, dataset, tree)
        self.held.enter_context(cache.held(tree, self.run.check, unpack))
        (self.rooms.data / dataset.name).symlink_to(tree)
        self.read_only.append(tree)

    def _unpack_dataset(self, dataset: ClaimedDataset, tree: Path) -> None:
        archive = self.preparation.fetch_upload(dataset, self.run)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=tree.parent))
        try:
            with cache.locked(archive, self.run.check, shared=True):
                left_out = unpacking.unpack_dataset(archive, aside, self.run.check)
            cache.weigh(tree, cache.measured(aside))
            aside.rename(tree)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for problem in left_out[:5]:
            self.report.note(f"left out of the data set: {problem}")
        cache.trim(self.settings.cache, self.settings.cache_bytes, time.time())

    def _command(self) -> tuple[str, list[str]]:
        """The file to execute, and its arguments."""
        script = self.run.claimed.spec.script
        if script is None:
            return self.interpreter.command(["python", "-m", "stoker.training.notebook"], self.rooms.work)
        return self.interpreter.command(script.command, self.rooms.work)

    def _task(self) -> RunTask:
        claimed, notebook = self.run.claimed, self.run.claimed.spec.notebook
        count, unit = parse_every("checkpoint.every", claimed.spec.checkpoint.every)
        return RunTask(
            job=claimed.job_number,
            attempt=claimed.ordinal,
            scratch=str(self.scratch),
            output=str(self.rooms.output),
            data=str(self.rooms.data),
            checkpoint=self.preparation.fetch_checkpoint(self.run, self.scratch),
            every=Interval(unit.removesuffix("s"), count),
            notebook=NotebookTask(notebook.path, dict(notebook.parameters)) if notebook else None,
            secrets=tuple(claimed.secrets),
        )

    def _variables(self) -> dict[str, str]:
        """The whole environment: what every trainer has, what the spec and the secrets say, and, last, what is ours."""
        claimed, rooms = self.run.claimed, self.rooms
        ours = {
            "PATH": self.interpreter.path,
            "HOME": str(rooms.home),
            "TMPDIR": str(rooms.temporary),
            "PYTHONPATH": str(rooms.python),
            "PYTHONUNBUFFERED": "1",  # what is printed is seen at once
            "PYTHONFAULTHANDLER": "1",
            "STOKER_JOB": str(claimed.job_number),
            "STOKER_ATTEMPT": str(claimed.ordinal),
            "STOKER_OUTPUT": str(rooms.output),
            "STOKER_DATA": str(rooms.data),
            "STOKER_RUN": str(self.scratch / TASK),
        }
        wanted = claimed.spec.environment.variables | claimed.secrets
        return self.preparation.environment_of(claimed, wanted | ours)
