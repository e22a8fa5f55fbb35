"""Routes: the content of checkpoints."""

import io
import itertools
from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from stoker.api.dependencies import Caller_, Database, Responses
from stoker.api.downloads import attachment
from stoker.api.parameters import Whole
from stoker.api.services import Services, Shared
from stoker.errors import DataDamaged, NotFound
from stoker.jobs import blobs
from stoker.jobs.visibility import seen_checkpoint
from stoker.training.tensorfile import MAX_HEADER_BYTES, TensorFileDamaged, read_header
from stoker.training.weights import weights_of

router = APIRouter(prefix="/checkpoints", tags=["records"])

CheckpointId = Annotated[int, Whole, Path(ge=1, description="From the list of a job's checkpoints")]
Format = Annotated[Literal["safetensors", "checkpoint"], Query(description="The weights alone, or all that it holds")]
FILE: Responses = {200: {"content": {"application/octet-stream": {}}, "description": "The file"}}


@router.get("/{checkpoint_id}/content", response_class=StreamingResponse, responses=FILE)
def content(
    checkpoint_id: CheckpointId,
    session: Database,
    caller: Caller_,
    services: Shared,
    format: Format = "safetensors",  # noqa: A002
) -> StreamingResponse:
    """A model's weights as a safetensors file, or the whole checkpoint (optimizer, position, random states)."""
    found = seen_checkpoint(session, caller, checkpoint_id)
    if found.blob_id is None:
        raise NotFound("checkpoint", checkpoint_id, "its bytes are not kept any more")
    name, blob_id, size = f"job-{found.job_number}-step-{found.step}", found.blob_id, found.bytes
    session.rollback()  # no transaction stays open while a slow client reads
    if format == "checkpoint":
        pieces = blobs.read(services.sessions, blob_id)
        return attachment(pieces, size, f"{name}.checkpoint")
    try:
        pieces, size = _weights(services, blob_id, size)
    except TensorFileDamaged:
        raise DataDamaged(f"checkpoint {checkpoint_id}") from None
    return attachment(pieces, size, f"{name}.safetensors")


def _weights(services: Services, blob_id: int, size: int) -> tuple[Iterator[bytes], int]:
    """The weights of a stored checkpoint of ``size`` bytes as a file of their own, read while they are sent.

    Returns its content and bytes. Raises TensorFileDamaged, DataDamaged.
    """
    with services.sessions() as session:
        start = blobs.read_range(session, blob_id, 0, 8)
        length = int.from_bytes(start, "little")
        start = blobs.read_range(session, blob_id, 0, 8 + min(length, MAX_HEADER_BYTES))
    header = read_header(io.BytesIO(start), size)
    packed, chosen = weights_of(header)
    spans = [(header.data_start + one.begin, header.data_start + one.end) for one in chosen]
    content = blobs.read_spans(services.sessions, blob_id, spans)
    return itertools.chain([packed], content), len(packed) + sum(one.nbytes for one in chosen)
