"""The thread that delivers notifications; where several processes have one, each takes what no other has taken."""

import queue
import threading
from collections.abc import Callable
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from stoker.jobs.database import sessions
from stoker.jobs.deliveries import Notice, Receipt, note, take
from stoker.jobs.vault import Vault
from stoker.log import Events, about

log = Events("stoker.courier")
LOOK_SECONDS = 0.2  # whether this is to end, while receivers make us wait


class Courier:
    """Looks every ``pause_seconds`` for what is due. ``carry`` delivers one notice, in several threads at once."""

    def __init__(self, engine: Engine, carry: Callable[[Notice], Receipt], vault: Vault, pause_seconds: float) -> None:
        self._sessions, self._carry, self._vault, self._pause = sessions(engine), carry, vault, pause_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way and not noted is tried again by the next process."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                while self._round() and not self._stopping.is_set():
                    pass
            except SQLAlchemyError as error:
                log.warning("courier_failed", error=str(error).splitlines()[0])
            except Exception:
                log.error("courier_failed")

    def _round(self) -> bool:
        """Deliver what is due; whether there was anything."""
        with self._sessions() as session:
            notices = take(session, self._vault)
            session.commit()  # before anything is sent: no row is locked while a receiver makes us wait
        receipts: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
        for notice in notices:  # in threads of their own: no slow receiver holds up the others, or our end
            target = partial(self._carry_one, notice, receipts)
            threading.Thread(target=target, name=f"carry {notice.id}", daemon=True).start()
        for _ in notices:
            receipt = self._next(receipts)
            if receipt is None:
                return False
            with self._sessions() as session:
                note(session, receipt)
                session.commit()
        return bool(notices)

    def _next(self, receipts: "queue.SimpleQueue[Receipt]") -> Receipt | None:
        """The next that comes; None: this is to end."""
        while not self._stopping.is_set():
            try:
                return receipts.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
        return None

    def _carry_one(self, notice: Notice, receipts: "queue.SimpleQueue[Receipt]") -> None:
        with about(job=notice.job_number, notification=notice.id):
            try:
                receipt = self._carry(notice)
            except Exception:
                log.error("notification_not_carried")
                receipt = Receipt(notice, "an error of the server; its log says more")
            (log.warning if receipt.problem else log.info)("notification_carried", problem=receipt.problem)
        receipts.put(receipt)
