"""A worker's devices under watch: one that others use, that has reported a hardware error or that answers no more is
taken out of use, with the reason; whoever ran on one that is lost runs again elsewhere."""

import os
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from stoker.log import Events
from stoker.workers import processes
from stoker.workers.devices import Inventory, Seen
from stoker.workers.runs import Runs

events = Events(__name__)
PAUSE_SECONDS = 0.1  # between two looks, each of which listens for errors for some seconds
FOREIGN_BYTES = 256 * 10**6  # a desktop holds less, and harms no training
SIGHTINGS = 2  # in a row before others are taken for such: a trainer that ends holds memory a moment longer
HARDWARE_XIDS = frozenset({48, 63, 64, 74, 79, 94, 95})  # all others are a program's own fault
LOST = "the driver does not list it any more"


class DeviceWatch:
    """The devices of one worker. ``judge`` is told of each look what speaks against a device, or None."""

    def __init__(
        self,
        inventory: Inventory,
        uuids: Sequence[str],
        runs: Runs,
        judge: Callable[[str, str | None], None],
        known: Collection[str] = (),
    ) -> None:
        """Nobody looks before ``start``; on the ``known`` devices others were seen already."""
        self._inventory, self._uuids, self._runs, self._judge = inventory, tuple(uuids), runs, judge
        # looks in a row that saw others on a device
        self._foreign = dict.fromkeys(uuids, 0) | dict.fromkeys(known, SIGHTINGS)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="devices", daemon=True)

    def start(self) -> None:
        """Look again and again, if there are devices."""
        if self._uuids:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; a look under way is not waited for."""
        self._stopping.set()

    def look(self) -> None:
        """Look once; raises what ``judge`` raises."""
        busy = self._busy()
        seen = self._inventory.look()
        if seen is None:
            return
        busy |= self._busy()
        ours = {os.getpid(), *processes.descendants(os.getpid())}
        for uuid in self._uuids:
            if fault := fault_of(seen.get(uuid)):
                self._lose(uuid, fault)
            self._judge(uuid, fault or self._others(uuid, seen[uuid], ours, uuid in busy))

    def _lose(self, uuid: str, fault: str) -> None:
        for run in self._runs.all():
            if uuid in run.claimed.device_uuids:
                run.lose_device(f"{uuid}: {fault}")

    def _others(self, uuid: str, seen: Seen, ours: set[int], busy: bool) -> str | None:
        reason = foreign(seen, ours, busy)
        self._foreign[uuid] = self._foreign[uuid] + 1 if reason else 0
        return reason if self._foreign[uuid] >= SIGHTINGS else None

    def _busy(self) -> set[str]:
        return {uuid for run in self._runs.all() for uuid in run.claimed.device_uuids}

    def _keep(self) -> None:
        while not self._stopping.wait(PAUSE_SECONDS):
            try:
                self.look()
            except Exception:  # of a database that is away, or of the driver: looked at again
                events.error("devices_not_watched")


def fault_of(seen: Seen | None) -> str | None:
    """Why what was seen of a device means that it cannot be trusted; None: nothing was wrong."""
    if seen is None:
        return LOST
    hardware = sorted(HARDWARE_XIDS.intersection(seen.xids))
    return f"hardware error: Xid {', '.join(map(str, hardware))}" if hardware else None


def foreign(seen: Seen, ours: set[int], busy: bool) -> str | None:
    """Who else uses a device, in words; None: nobody.

    Args:
        seen: What the driver says of it.
        ours: This worker and all processes below it.
        busy: A job of this worker has the device. Then only processes that exist here, and are not ours, are
            others: in a container the driver may give our own the pids of the host.
    """
    others = {pid: size for pid, size in seen.processes.items() if pid not in ours and not 0 < size < FOREIGN_BYTES}
    if busy:
        others = {pid: size for pid, size in others.items() if _name(pid)}
    if others:
        pid, size = max(others.items(), key=lambda held: held[1])
        name, amount = _name(pid), f", {size / 1e9:.1f} GB" if size else ""
        return f"in use by process {pid}{f' ({name})' if name else ''}{amount}, which is not Stoker's"
    held = seen.used_bytes or 0
    if not busy and held >= FOREIGN_BYTES:
        return f"{held / 1e9:.1f} GB of its memory are in use by processes that cannot be seen from here"
    return None


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def at_start(inventory: Inventory, uuids: Sequence[str]) -> dict[str, str]:
    """What speaks against devices when the worker starts, before any process of its own is on them."""
    seen = inventory.look() if uuids else {}
    if seen is None:
        return {}
    reasons = {uuid: fault_of(seen.get(uuid)) or foreign(seen[uuid], set(), busy=False) for uuid in uuids}
    return {uuid: reason for uuid, reason in reasons.items() if reason}
