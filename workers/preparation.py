"""Before the trainer: its folder, its data, the checkpoint to go on from, and what it sees of the worker."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from stoker.errors import DataDamaged, NotFound
from stoker.jobs import blobs, records
from stoker.jobs.claims import Claimed, ClaimedDataset
from stoker.jobs.resuming import ClaimedCheckpoint
from stoker.training import cache
from stoker.training.config import BUILTIN_DATASETS, CheckpointSource, DatasetSource
from stoker.training.removal import remove_tree
from stoker.workers.bounds import Bounds
from stoker.workers.devices import Inventory, cuda_environment, limit_memory
from stoker.workers.runs import Run
from stoker.workers.transactions import persist, repeat

RESUME = "resume.safetensors"


def make_scratch(root: Path, run: Run) -> Path:
    """Make the run's folder, empty and private, with a name of ours."""
    scratch = root / str(run.id)
    remove_tree(scratch)  # of a message that came twice, long ago
    scratch.mkdir(mode=0o700, parents=True)
    if os.geteuid() == 0:  # jobs become users of their own, and compilers ask access(2) of the whole way
        for above in (root, root.parent):
            above.chmod(0o711)
    return scratch


def empty_folder(folder: Path) -> None:
    """Make a folder, or remove all that is in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in folder.iterdir():
        remove_tree(entry)


def write_verified(path: Path, pieces: Iterable[bytes], sha256: str, check: Callable[[], None]) -> None:
    """Write a file that appears whole and right, or not at all.

    Raises DataDamaged, OSError, and what ``check``, called between two pieces, raises.
    """
    digest = hashlib.sha256()
    aside, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(aside, "wb") as file:
            for piece in pieces:
                check()
                digest.update(piece)
                file.write(piece)
            if digest.hexdigest() != sha256:
                raise DataDamaged(path.name)
            file.flush()
            os.fsync(file.fileno())
        Path(name).rename(path)
    finally:
        Path(name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Brings what a trainer needs to this machine."""

    sessions: sessionmaker[Session]
    inventory: Inventory
    environment: dict[str, str]  # what every trainer may see
    cache: Path
    cache_bytes: int  # most that it may hold
    bounds: Bounds

    def fetch_dataset(self, run: Run) -> DatasetSource:
        """Bring an upload into the cache, unless it or what is made of it is there; built-ins have nothing to fetch.

        Raises Interrupted, DataDamaged, NotFound, OSError (a full disk).
        """
        dataset = run.claimed.dataset
        if dataset is None:
            raise NotFound("data set", f"of job {run.claimed.job_number}", "it is no training by a recipe")
        if dataset.blob_id is None or dataset.sha256 is None:
            if dataset.name not in BUILTIN_DATASETS:
                raise NotFound("data set", dataset.name)
            return DatasetSource(dataset.name, str(self.cache), cache_bytes=self.cache_bytes)
        path = self._place(dataset)
        if not cache.has(cache.prepared(self.cache, dataset.sha256), run.check):
            self.fetch(path, dataset.blob_id, dataset.sha256, run)
        return DatasetSource(
            dataset.name, str(self.cache), f"sha256:{dataset.sha256}", str(path), cache_bytes=self.cache_bytes
        )

    def fetch_upload(self, dataset: ClaimedDataset, run: Run) -> Path:
        """Bring the archive of an upload into the cache, unless it is there; its place.

        Raises as ``fetch``.
        """
        path = self._place(dataset)
        if dataset.blob_id is not None and dataset.sha256 is not None:
            self.fetch(path, dataset.blob_id, dataset.sha256, run)
        return path

    def fetch(self, path: Path, blob_id: int, sha256: str, run: Run) -> None:
        """Bring a blob into the cache, unless it is there.

        Raises Interrupted, DataDamaged, NotFound, OSError (a full disk).
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.held(path, run.check, lambda: self._fetch(path, blob_id, sha256, run)):
            pass  # so lately used, it stays for the time of a hand-over

    def _place(self, dataset: ClaimedDataset) -> Path:
        return self.cache / "uploads" / f"{dataset.sha256}.{'zip' if dataset.format == 'zip' else 'tar'}"

    def fetch_checkpoint(self, run: Run, scratch: Path) -> CheckpointSource | None:
        """Bring the checkpoint to go on from into the run's folder; a damaged one is reported, the one before used.

        Raises Interrupted, AttemptClosed, OSError.
        """
        checkpoint = run.claimed.checkpoint
        while checkpoint is not None:
            try:
                path = scratch / RESUME
                self._fetch(path, checkpoint.blob_id, checkpoint.sha256, run)
            except (DataDamaged, NotFound) as damage:
                checkpoint = self._next_best(run, checkpoint, str(damage))
            else:
                return CheckpointSource(str(path), checkpoint.sha256, checkpoint.step, checkpoint.epoch)
        return None

    def _fetch(self, path: Path, blob_id: int, sha256: str, run: Run) -> None:
        """Write a blob to a file, from its start again when the database went away."""

        def work() -> None:
            write_verified(path, blobs.read(self.sessions, blob_id), sha256, run.check)

        persist(work, go_on=run.go_on, what="fetch")

    def _next_best(self, run: Run, damaged: ClaimedCheckpoint, evidence: str) -> ClaimedCheckpoint | None:
        return repeat(
            self.sessions,
            lambda session: records.report_damaged(session, run.id, run.incarnation, damaged.id, evidence),
            go_on=run.go_on,
            what="report_damaged",
        )

    def device(self, claimed: Claimed) -> str:
        """What the trainer calls its device: ``cpu`` or ``cuda:0``."""
        return self.inventory.torch_device(claimed.device_uuids) if claimed.device == "gpu" else "cpu"

    def environment_of(self, claimed: Claimed, more: Mapping[str, str]) -> dict[str, str]:
        """What a trainer has in its environment: its processors, its devices and no others, and what it brings itself.

        On a device that it shares torch keeps to the job's part of the memory.
        """
        own = {"OMP_NUM_THREADS": str(max(1, int(claimed.spec.resources.cpus)))}
        whole = self.environment | own | cuda_environment(claimed.device_uuids) | dict(more)
        return limit_memory(whole, claimed.device_share, claimed.device_bytes)
