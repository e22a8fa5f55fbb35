"""The thread that delivers notifications; where several processes have one, each takes what no other has taken."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from stoker.jobs.database import sessions
from stoker.jobs.deliveries import AT_ONCE, Notice, Receipt, note, take
from stoker.jobs.vault import Vault
from stoker.log import Events, about

log = Events("stoker.courier")


class Courier:
    """Looks every ``pause_seconds`` for what is due. ``carry`` delivers one notice, in several threads at once."""

    def __init__(self, engine: Engine, carry: Callable[[Notice], Receipt], vault: Vault, pause_seconds: float) -> None:
        self._sessions, self._carry, self._vault, self._pause = sessions(engine), carry, vault, pause_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._carriers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="carry")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is under way and not noted is tried again by the next process."""
        self._stopping.set()
        self._carriers.shutdown(wait=False, cancel_futures=True)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                while self._round() and not self._stopping.is_set():
                    pass
            except SQLAlchemyError as error:
                log.warning("courier_failed", error=str(error).splitlines()[0])
            except Exception:
                if not self._stopping.is_set():  # else the carriers are gone already
                    log.error("courier_failed")

    def _round(self) -> bool:
        """Deliver what is due; whether there was anything."""
        with self._sessions() as session:
            notices = take(session, self._vault)
            session.commit()  # before anything is sent: no row is locked while a receiver makes us wait
        for receipt in self._carriers.map(self._carried, notices):
            with self._sessions() as session:
                note(session, receipt)
                session.commit()
        return bool(notices)

    def _carried(self, notice: Notice) -> Receipt:
        with about(job=notice.job_number, notification=notice.id):
            try:
                receipt = self._carry(notice)
            except Exception:
                log.error("notification_not_carried")
                receipt = Receipt(notice, "an error of the server; its log says more")
            (log.warning if receipt.problem else log.info)("notification_carried", problem=receipt.problem)
        return receipt
