"""What a worker tells its fork server: packets of JSON over a socketpair, with descriptors beside them."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

MAX_PACKET_BYTES = 128 * 1024  # a packet arrives whole or not at all


@dataclass(frozen=True, slots=True)
class Order:
    """Run one task. Two descriptors come with it: the socket to the supervisor, and the log file."""

    id: str  # of the attempt
    task: dict[str, Any]
    environment: dict[str, str]  # the whole of it
    scratch: str  # folder: its HOME, TMPDIR and working directory
    title: str  # seen in ps
    deadline: float  # CLOCK_BOOTTIME at which it freezes unless renewed
    confinement: dict[str, Any] | None = None  # as ``sandbox.Confinement.to_document`` writes it; None: not confined

    def packet(self) -> bytes:
        """The order as one packet; raises ValueError when it is too long."""
        data = pack({"op": "spawn"} | dataclasses.asdict(self))
        if len(data) > MAX_PACKET_BYTES:
            raise ValueError(f"an order of {len(data)} bytes is too long")
        return data

    @classmethod
    def read(cls, document: dict[str, Any]) -> Self:
        """What ``packet`` wrote."""
        return cls(**{field.name: document[field.name] for field in dataclasses.fields(cls)})


def pack(document: dict[str, Any]) -> bytes:
    """One packet."""
    return json.dumps(document, separators=(",", ":")).encode()
