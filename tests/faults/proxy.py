"""A TCP door to a unix socket that can be slow, or swallow everything that passes, as a network can."""

import asyncio
import contextlib
import threading
from pathlib import Path

PIECE_BYTES = 256 * 1024
LOOK_SECONDS = 0.02


class Proxy:
    """One door, served by a thread of its own."""

    def __init__(self, target: Path, host: str = "127.0.0.1") -> None:
        """Listen on a free port of ``host`` and pass everything on to the unix socket ``target``."""
        self._target, self._host = target, host
        self.port = 0
        self.delay_seconds = 0.0  # of each piece, in both directions
        self.silent = False  # nothing passes, nobody is told
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Close the door and all that goes through it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, self._host, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.silent:  # the kernel has accepted: that is not to be helped, but no answer comes
            await asyncio.sleep(LOOK_SECONDS)
        try:
            inner, outer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._pass_on(reader, outer), self._pass_on(inner, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side has gone
        finally:
            for side in (writer, outer):
                with contextlib.suppress(OSError, RuntimeError):
                    side.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            while self.silent:
                await asyncio.sleep(LOOK_SECONDS)
            writer.write(data)
            await writer.drain()
        writer.close()
