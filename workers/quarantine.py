"""Devices that cannot be trusted: taken out of use with the reason, and back once a training step works on them."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import exc
from sqlalchemy.orm import Session, sessionmaker

from stoker.jobs import fleet
from stoker.log import Events
from stoker.workers import processes
from stoker.workers.devices import Inventory, Seen
from stoker.workers.supervision import Limit, Sight
from stoker.workers.trainers import UNKILLABLE
from stoker.workers.transactions import once, repeat
from stoker.workers.watch import fault_of

events = Events(__name__)
SELF_TEST_SECONDS = 60.0
EMPTY_SECONDS = 3.0  # a driver takes a moment to take back the memory of a process that was killed
PAUSE_SECONDS = 0.2


class Quarantine:
    """The devices of one worker. ``self_test`` makes a training step on a device and says whether that worked."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        worker: str,
        inventory: Inventory,
        self_test: Callable[[str], bool],
        every_seconds: float = SELF_TEST_SECONDS,
        objections: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is tested before ``start``; ``objections`` are those with which the worker registers."""
        self._sessions, self._worker, self._inventory, self._self_test = sessions, worker, inventory, self_test
        self._every_seconds = every_seconds
        self._left: dict[str, int] = {}  # device -> the trainer that was seen on it last
        self._objections = dict(objections or {})  # device -> what speaks against it as long as it is seen
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="self-test", daemon=True)

    def start(self) -> None:
        """Test what is out of use, periodically."""
        self._thread.start()

    def stop(self) -> None:
        """Test no more; a test under way is not waited for."""
        self._stopping.set()

    def examine(self, uuids: Sequence[str], sight: Sight, go_on: Callable[[], bool]) -> str | None:
        """Take devices out of use if what was seen of their trainer says so. Waits for the database while ``go_on()``.

        Returns what was found wrong with the first of them; None: nothing. Raises what the database raises.
        """
        faults = []
        for uuid in uuids:
            if reason := self._suspicion(uuid, sight):
                faults.append(f"{uuid}: {reason}")
                self._left[uuid] = sight.pid
                events.error("device_quarantined", uuid=uuid, reason=reason)
                self._set(uuid, reason, go_on)
        return faults[0] if faults else None

    def judge(self, uuid: str, objection: str | None) -> None:
        """Take a device out of use for what is seen of it now, such as a stranger; None: nothing speaks against it.

        Waits for the database until stopped; raises what that raises.
        """
        if objection is None:
            self._objections.pop(uuid, None)
        elif uuid not in self._objections:
            events.error("device_quarantined", uuid=uuid, reason=objection)
            self._set(uuid, objection[:500], lambda: not self._stopping.is_set())
            self._objections[uuid] = objection

    def review(self) -> None:
        """Test each device that is out of use, and take back those on which a training step works."""
        for uuid in once(self._sessions, lambda session: fleet.quarantined(session, self._worker)):
            if self._is_sound(uuid):
                events.info("device_back", uuid=uuid)
                self._set(uuid, None, lambda: not self._stopping.is_set())

    def _suspicion(self, uuid: str, sight: Sight) -> str | None:
        if sight.lost == UNKILLABLE:
            return f"trainer {sight.pid} did not end when it was killed"
        if sight.limit is Limit.DEVICE:
            return f"device_error: {sight.device_fault}"[:500]
        until = time.monotonic() + EMPTY_SECONDS
        while sight.pid in self._inventory.processes(uuid):
            if time.monotonic() > until:
                return f"trainer {sight.pid} has ended, its memory is still in use"
            time.sleep(PAUSE_SECONDS)
        if fault := self._heard(uuid):
            return fault
        # A trainer may say so of a device that is sound, to run again for free or to keep others off: it is tried.
        if sight.failure and sight.failure["class"] == "device_error" and not self._self_test(uuid):
            return "a training step failed on it after its trainer had reported a device error"
        return self._heard(uuid)  # the driver may tell of it a moment after the trainer

    def _heard(self, uuid: str) -> str | None:
        return fault_of(Seen(xids=self._inventory.heard(uuid)))

    def _is_sound(self, uuid: str) -> bool:
        if uuid in self._objections:
            return False
        left = self._left.get(uuid)
        if left is not None and (processes.started(left) is not None or left in self._inventory.processes(uuid)):
            return False
        return self._self_test(uuid)

    def _set(self, uuid: str, reason: str | None, go_on: Callable[[], bool]) -> None:
        repeat(
            self._sessions,
            lambda session: fleet.quarantine(session, self._worker, uuid, reason),
            go_on=go_on,
            what="quarantine",
        )

    def _keep(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            try:
                self.review()
            except (exc.DBAPIError, exc.TimeoutError) as error:
                events.warning("self_test_postponed", error=str(error.args[0]).splitlines()[0][:300])
            except Exception:  # of the fork server or of a full disk: the device stays out of use until it passes
                events.error("self_test_failed")
