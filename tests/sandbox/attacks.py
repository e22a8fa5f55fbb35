"""What a job could try against its worker, its neighbours and the services: each attack raises when it is refused.

The targets: pids of ``worker`` and ``neighbour``; paths of a ``secret``, of the file of an ``other`` job, of a
``lock`` of the cache and of Stoker's ``code``; sockets: ``postgres``, ``redis``, ``socket``, ``datagrams`` by path,
``abstract`` by name, ``port`` by TCP.

``python -m tests.sandbox.attacks TARGETS.json`` prints the names of those that succeeded; it needs nothing but Python
and its ``sources``.
"""

import json
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.sandbox import (
    attack,
    attacks_files,
    attacks_kernel,
    attacks_network,
    attacks_processes,
    attacks_rights,
)
from tests.sandbox.attack import ATTACKS

LISTS = (attacks_files, attacks_kernel, attacks_network, attacks_processes, attacks_rights)


def sources() -> dict[str, str]:
    """The text of each module, by the path from which ``python -m`` finds it: for a job that has nothing of ours."""
    modules = (attack, *LISTS, sys.modules[succeeded.__module__])
    return {f"tests/sandbox/{path.name}": path.read_text() for path in (Path(str(one.__file__)) for one in modules)}


def succeeded(targets: dict[str, Any], names: Iterable[str] = ()) -> list[str]:
    """Try these attacks, or all; the names of those that were not refused."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = []
    for name in names or ATTACKS:
        try:
            ATTACKS[name](targets)
        except (OSError, ValueError):
            continue
        found.append(name)
    return found


if __name__ == "__main__":
    json.dump(succeeded(json.loads(Path(sys.argv[1]).read_text())), sys.stdout)
