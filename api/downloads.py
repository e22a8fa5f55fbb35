"""Stored bytes on their way out: as a file to keep, never as a page to show."""

from collections.abc import Iterator
from urllib.parse import quote

from fastapi.responses import StreamingResponse


def attachment(
    pieces: Iterator[bytes], size: int, name: str, media_type: str = "application/octet-stream"
) -> StreamingResponse:
    """Send a file that a browser stores and never runs, whatever it holds and is called."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in name)
    exact = f"; filename*=UTF-8''{quote(name, safe='')}" if name != plain else ""
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{plain}"{exact}',
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(pieces, media_type=media_type, headers=headers)
