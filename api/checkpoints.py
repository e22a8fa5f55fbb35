"""Routes: the content of checkpoints."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from stoker.api.dependencies import Caller_, Database, Responses
from stoker.api.parameters import Whole
from stoker.api.services import Services, Shared
from stoker.api.uploads import disk_room, private_folder, read_pieces
from stoker.errors import DataDamaged, NotFound
from stoker.jobs import blobs
from stoker.jobs.visibility import seen_checkpoint
from stoker.training.tensorfile import TensorFileDamaged
from stoker.training.weights import export_weights

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
        return _download(pieces, size, f"{name}.checkpoint")
    folder = private_folder(services.settings.home, "downloads")
    with contextlib.ExitStack() as stack:
        exported = FilePath(stack.enter_context(tempfile.TemporaryDirectory(dir=folder))) / "weights"
        size = _export(services, blob_id, exported, checkpoint_id)
        keep = stack.pop_all()  # the folder goes away when the last byte is sent
    return _download(_closing(keep, exported), size, f"{name}.safetensors")


def _export(services: Services, blob_id: int, target: FilePath, checkpoint_id: int) -> int:
    """Write the weights of a stored checkpoint to a file; returns its bytes. Raises DataDamaged, DiskFull."""
    source = target.with_name("checkpoint")
    with disk_room():
        with source.open("wb") as file:
            file.writelines(blobs.read(services.sessions, blob_id))
        try:
            size, _ = export_weights(source, target)
        except TensorFileDamaged:
            raise DataDamaged(f"checkpoint {checkpoint_id}") from None
        finally:
            source.unlink()
    return size


def _closing(resources: contextlib.ExitStack, path: FilePath) -> Iterator[bytes]:
    with resources:
        yield from read_pieces(path)


def _download(pieces: Iterator[bytes], size: int, name: str) -> StreamingResponse:
    headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)
