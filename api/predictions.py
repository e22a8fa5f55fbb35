"""Routes: the predictions of a job, and the images they are about."""

import io
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from PIL import Image

from stoker.api.dependencies import Database, Responses, SeenJob
from stoker.api.parameters import Cursor, Limit, Truth, Whole
from stoker.jobs import predictions
from stoker.jobs.predictions import PredictionPage, Tile

router = APIRouter(prefix="/jobs/{number}/predictions", tags=["predictions"])

Index = Annotated[int, Whole, Path(ge=0, description="Place in test order")]
PNG: Responses = {200: {"content": {"image/png": {}}, "description": "The image"}}


@router.get("")
def list_predictions(
    job: SeenJob,
    session: Database,
    wrong: Annotated[bool | None, Truth, Query(description="Only wrong ones, or only right ones")] = None,
    label: Annotated[str | None, Query(description="Only images of this class")] = None,
    predicted: Annotated[str | None, Query(description="Only images taken for this class")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> PredictionPage:
    """Label, prediction and probability of every test image, in test order."""
    return predictions.query(
        session, job.number, wrong=wrong, label=label, predicted=predicted, after=cursor, limit=limit
    )


@router.get("/{index}/image", response_class=Response, responses=PNG)
def image(index: Index, job: SeenJob, session: Database) -> Response:
    """One test image, as PNG."""
    tile = predictions.tile(session, job.number, index)
    return Response(png(tile), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


def png(tile: Tile) -> bytes:
    """A tile of 1 (grey) or 3 (RGB) channels as PNG, pixel for pixel."""
    mode = "L" if tile.channels == 1 else "RGB"
    written = io.BytesIO()
    Image.frombytes(mode, (tile.width, tile.height), tile.pixels).save(written, "PNG")
    return written.getvalue()
