"""The thread that delivers notifications; where several processes have one, each takes what no other has taken."""

import queue
import threading
from collections import Counter
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from stoker.jobs.database import sessions
from stoker.jobs.deliveries import Notice, Receipt, note, take
from stoker.jobs.vault import Vault
from stoker.log import Events, about

log = Events("stoker.courier")


class Courier:
    """Takes what is due as soon as something was carried, or after ``pause_seconds``; what waits for a silent receiver
    holds up nothing else. ``carry`` delivers one notice, in several threads at once."""

    def __init__(self, engine: Engine, carry: Callable[[Notice], Receipt], vault: Vault, pause_seconds: float) -> None:
        self._sessions, self._carry, self._vault, self._pause = sessions(engine), carry, vault, pause_seconds
        self._under_way = Counter[int]()  # notices by the id of their owner
        self._receipts: queue.SimpleQueue[Receipt | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way and not noted is tried again by the next process."""
        self._stopping.set()
        self._receipts.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._take()
                self._note_next()
            except SQLAlchemyError as error:
                log.warning("courier_failed", error=str(error).splitlines()[0])
                self._stopping.wait(self._pause)
            except Exception:
                log.error("courier_failed")
                self._stopping.wait(self._pause)

    def _take(self) -> None:
        """Begin to deliver what is due, in threads of their own: no slow receiver holds up the others, or our end."""
        with self._sessions() as session:
            notices = take(session, self._vault, self._under_way)
            session.commit()  # before anything is sent: no row is locked while a receiver makes us wait
        for notice in notices:
            self._under_way[notice.owner_id] += 1
            threading.Thread(target=self._carry_one, args=(notice,), name=f"carry {notice.id}", daemon=True).start()

    def _note_next(self) -> None:
        """Wait until something was carried, and note what became of it; or until it is time to look again."""
        try:
            receipt = self._receipts.get(timeout=self._pause)
        except queue.Empty:
            return
        if receipt is None or self._stopping.is_set():
            return
        self._under_way -= Counter((receipt.notice.owner_id,))
        with self._sessions() as session:
            note(session, receipt)
            session.commit()

    def _carry_one(self, notice: Notice) -> None:
        with about(job=notice.job_number, notification=notice.id):
            try:
                receipt = self._carry(notice)
            except Exception:
                log.error("notification_not_carried")
                receipt = Receipt(notice, "an error of the server; its log says more")
            (log.warning if receipt.problem else log.info)("notification_carried", problem=receipt.problem)
        self._receipts.put(receipt)
