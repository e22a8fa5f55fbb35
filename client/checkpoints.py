"""The checkpoints of a job, and their way into a file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.client.downloads import fetch
from stoker.client.transport import Transport
from stoker.errors import NotFound


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint that the server keeps."""

    id: int
    step: int
    epoch: int
    bytes: int
    sha256: str
    metrics: dict[str, float]
    latest: bool
    best: bool
    damaged: bool
    created_at: str
    transport: Transport

    def download(self, path: str | os.PathLike[str]) -> Path:
        """Write the weights as safetensors; the file appears only when it is whole."""
        return fetch(self.transport, f"/checkpoints/{self.id}/content", Path(path))


class Checkpoints:
    """The checkpoints of one job, the latest first, as they were when this was asked for."""

    def __init__(self, number: int, transport: Transport, items: list[dict[str, Any]]) -> None:
        known = [name for name in Checkpoint.__dataclass_fields__ if name != "transport"]
        self._number = number
        told: list[dict[str, Any]] = [{name: item.get(name) for name in known} for item in items]
        self._items = [Checkpoint(**item, transport=transport) for item in told]

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def latest(self) -> Checkpoint:
        """The one that the job would go on from; raises NotFound."""
        return self._marked("latest")

    @property
    def best(self) -> Checkpoint:
        """The one with the highest accuracy on the validation images, or the latest without any; raises NotFound."""
        return self._marked("best")

    def _marked(self, mark: str) -> Checkpoint:
        for item in self._items:
            if getattr(item, mark):
                return item
        raise NotFound("checkpoint", mark, f"job {self._number} has {len(self)} checkpoints")
