"""A fork server whose trainers attack: ``python -m tests.sandbox.attackers DESCRIPTOR``.

Kind ``forked`` attacks in the forked process, as a built-in recipe could; ``exec`` in an interpreter of its own, as a
script does. What succeeded goes to the log.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from stoker.workers import forkserver
from tests.sandbox import attacks


def run(document: dict[str, Any], connection: socket.socket) -> int:
    """Attack the targets of the task."""
    if document["kind"] == "exec":
        connection.detach()
        Path("targets.json").write_text(json.dumps(document["targets"]))
        Path("tests/sandbox").mkdir(parents=True)
        for path, text in document["sources"].items():
            Path(path).write_text(text)
        os.execve(sys.executable, [sys.executable, "-m", "tests.sandbox.attacks", "targets.json"], dict(os.environ))
    sys.stdout.write(json.dumps(attacks.succeeded(document["targets"])))
    return 0


if __name__ == "__main__":
    forkserver.serve(int(sys.argv[-1]), run)
