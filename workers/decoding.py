"""Data sets on their way to jobs: fetched by the worker, decoded by a trainer of its own, read by the jobs' trainers.

What decodes a hostile archive has that archive, an empty folder, and nothing else of the cache; only the worker takes
into the cache what it has made. A built-in data set is downloaded the same way, by Stoker's own code alone: the job
that comes after it needs no network.
"""

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stoker.errors import DataDamaged, StokerError
from stoker.jobs.attempts import Ending
from stoker.jobs.spec import training_config
from stoker.training import cache
from stoker.training.config import DatasetSource, Task
from stoker.training.removal import remove_tree
from stoker.workers.orders import Order
from stoker.workers.preparation import Preparation
from stoker.workers.runs import Run
from stoker.workers.supervision import Sight
from stoker.workers.verdict import failed, judge

DOWNLOADED = ("cifar10", "cifar100", "mnist", "fashion-mnist")


class NotDecoded(StokerError):
    """There is no data set to train on; ``ending`` says how the attempt ends."""

    code = "not_decoded"

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Decoding:
    """The data set of one attempt; ``watch`` runs an order to its end."""

    preparation: Preparation
    run: Run
    scratch: Path
    watch: Callable[[Order], Sight]

    @contextlib.contextmanager
    def prepared(self) -> Iterator[DatasetSource]:
        """The decoded data set, which stays in the cache for the time of the context.

        Raises NotDecoded, Interrupted, AttemptClosed, DataDamaged or NotFound, OSError.
        """
        source = self.preparation.fetch_dataset(self.run)
        path = cache.prepared(self.preparation.cache, (source.digest or source.name).removeprefix("sha256:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.held(path, self.run.check, lambda: self._decode(source, path)):
            yield replace(source, prepared=str(path))

    def _decode(self, source: DatasetSource, path: Path) -> None:
        folder = self.scratch / "decode"
        folder.mkdir(mode=0o700)
        sight = self.watch(self._order(source, folder))
        made = cache.prepared(folder, path.name.partition("-v")[0])
        if sight.status != 0 or self.run.asked or not made.exists():
            raise NotDecoded(judge(self.run.asked, sight))
        try:
            take(made, folder, path)
        except DataDamaged as damage:
            raise NotDecoded(failed("data_corrupt", str(damage))) from None
        remove_tree(folder)
        cache.trim(self.preparation.cache, self.preparation.cache_bytes, time.time())

    def _order(self, source: DatasetSource, folder: Path) -> Order:
        claimed, preparation = self.run.claimed, self.preparation
        downloads = preparation.cache / "downloads" if source.name in DOWNLOADED and source.source is None else None
        if downloads:
            downloads.mkdir(parents=True, exist_ok=True)
        private = replace(source, cache=str(folder), cache_bytes=0, downloads=str(downloads) if downloads else None)
        threads = max(1, int(claimed.spec.resources.cpus))
        task = Task("prepare", training_config(claimed.spec), private, str(folder), threads=threads)
        return Order(
            id=str(self.run.id),
            task=task.to_document(),
            environment=preparation.environment_of(claimed, {}) | {"HOME": str(folder), "TMPDIR": str(folder)},
            scratch=str(folder),
            title=f"job {claimed.job_number} data",
            deadline=self.run.deadline,
            confinement=preparation.bounds.confinement(
                folder,
                network=downloads is not None,
                cpus=claimed.spec.resources.cpus,
                memory_bytes=claimed.spec.resources.memory,
                read_only=[source.source] if source.source else [],
                read_write=[downloads] if downloads else [],
            ),
        )


def take(made: Path, folder: Path, path: Path) -> None:
    """Move a file that a process, dead by now, has made below a folder to its place; never what a link leads to.

    Raises DataDamaged, OSError.
    """
    found = made.lstat()
    if made.parent.resolve() != folder.resolve() / made.parent.relative_to(folder) or not stat.S_ISREG(found.st_mode):
        raise DataDamaged(made.name)
    os.chown(made, os.geteuid(), os.getegid())
    try:
        made.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        shutil.copyfile(made, aside)  # the cache lies on another disk than the scratch folders
        aside.replace(path)
