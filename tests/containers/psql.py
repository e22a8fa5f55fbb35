"""A psql that stays open: while something is waited for it is asked often, and each new one costs half a second."""

import subprocess
from collections.abc import Mapping
from threading import Lock

from tests.containers.commands import CommandFailed

_END = "-- this is the end of the answer --"
_OPEN = "PGPASSWORD=$(cat /run/secrets/postgres_password) exec psql --host 127.0.0.1 --username stoker -qAt 2>&1"


class Psql:
    """psql in a container with PostgreSQL."""

    def __init__(self, container: str, environ: Mapping[str, str]) -> None:
        """Start it. ``environ`` reaches the engine."""
        command = ["docker", "exec", "-i", container, "sh", "-c", _OPEN]
        self._process = subprocess.Popen(
            command, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = Lock()

    def ask(self, question: str) -> str:
        """What PostgreSQL answers, fields separated by ``|``. Raises CommandFailed."""
        told, heard = self._process.stdin, self._process.stdout
        assert told is not None
        assert heard is not None
        with self._lock:
            told.write(f"{question};\n\\echo {_END}\n")
            told.flush()
            lines: list[str] = []
            while (line := heard.readline()).rstrip("\n") != _END:
                if not line:
                    raise CommandFailed(f"psql ended: {''.join(lines)}")
                lines.append(line)
        answer = "".join(lines).strip()
        if "ERROR:" in answer or "FATAL:" in answer:
            raise CommandFailed(f"{question}: {answer}")
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
