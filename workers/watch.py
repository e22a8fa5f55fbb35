"""A worker's devices under watch: one that others use, that has reported a hardware error or that answers no more is
taken out of use, with the reason; whoever ran on one that is lost runs again elsewhere."""

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from stoker.log import Events
from stoker.workers import processes
from stoker.workers.devices import Inventory, Seen
from stoker.workers.runs import Runs

events = Events(__name__)
EVERY_SECONDS = 15.0
PAUSE_SECONDS = 0.1  # between two looks at devices that are made up, which come at once
EMPTY_SECONDS = 3.0  # for what a worker left that was killed just before
FOREIGN_BYTES = 256 * 10**6  # a desktop holds less, and harms no training
SIGHTINGS = 2  # in a row before a device is missing or others are on it: a trainer that ends holds memory for a moment
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
        """Nobody looks before ``start``; against the ``known`` devices something spoke already."""
        self._inventory, self._uuids, self._runs, self._judge = inventory, tuple(uuids), runs, judge
        # looks in a row at which something spoke against a device
        self._in_a_row = dict.fromkeys(uuids, 0) | dict.fromkeys(known, SIGHTINGS)
        self._unjudged: dict[str, tuple[int, ...]] = {}  # errors of earlier looks, of which the judge has not heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="devices", daemon=True)

    def start(self) -> None:
        """Look again and again, if there are devices."""
        if self._uuids:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; a look under way is not waited for."""
        self._stopping.set()
        self._inventory.close()

    def look(self) -> None:
        """Look once; raises what ``judge`` raises."""
        busy = self._busy()
        seen = self._inventory.look(EVERY_SECONDS)
        if seen is None:
            return
        seen = {uuid: replace(one, xids=self._unjudged.get(uuid, ()) + one.xids) for uuid, one in seen.items()}
        self._unjudged |= {uuid: one.xids for uuid, one in seen.items()}
        busy |= self._busy()
        ours = {os.getpid(), *processes.descendants(os.getpid())}
        for uuid in self._uuids:
            found = seen.get(uuid)
            fault = fault_of(found)
            reason = fault or foreign(found or Seen(), ours, uuid in busy)
            self._in_a_row[uuid] = self._in_a_row[uuid] + 1 if reason else 0
            certain = bool(fault and found) or self._in_a_row[uuid] >= SIGHTINGS
            if fault and certain:
                self._lose(uuid, fault)
            self._judge(uuid, reason if certain else None)
            if found:
                del self._unjudged[uuid]

    def _lose(self, uuid: str, fault: str) -> None:
        for run in self._runs.all():
            if uuid in run.claimed.device_uuids:
                run.lose_device(f"{uuid}: {fault}")

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
    until = time.monotonic() + EMPTY_SECONDS
    while uuids and (seen := inventory.look(0)) is not None:
        found = {uuid: fault_of(seen.get(uuid)) or foreign(seen[uuid], set(), busy=False) for uuid in uuids}
        reasons = {uuid: reason for uuid, reason in found.items() if reason}
        if not reasons or time.monotonic() > until:
            return reasons
        time.sleep(PAUSE_SECONDS)
    return {}
