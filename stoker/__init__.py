"""Stoker keeps a team's GPUs fed.

The public names are loaded on first use: importing this package loads no torch, no web framework and no Celery.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoker.client.client import Client as Client
    from stoker.training.current import current_run as current_run

__version__ = "0.1.0"

_PUBLIC = {"Client": "stoker.client.client", "current_run": "stoker.training.current"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'stoker' has no attribute {name!r}")
