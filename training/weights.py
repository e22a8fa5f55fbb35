"""The weights out of a checkpoint. Imports no torch: the API serves downloads with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stoker.training import tensorfile
from stoker.training.tensorfile import Entry, Header, TensorFileDamaged

PREFIX = "model."  # of the names of weights and buffers in a checkpoint
_CHUNK_BYTES = 1 << 20


def export_weights(source: Path, target: Path) -> tuple[int, str]:
    """Copy the weights and buffers of a checkpoint into a safetensors file of their own.

    The names are those of the model's ``state_dict``. Returns bytes and SHA-256 of ``target``, which appears whole or
    not at all. Raises TensorFileDamaged when ``source`` is no checkpoint, OSError when a file cannot be used.
    """
    with Path(source).open("rb") as file:
        header = tensorfile.read_header(file)
        packed, chosen = weights_of(header)
        return tensorfile.write(Path(target), packed, _bytes_of(file, header.data_start, chosen))


def weights_of(header: Header) -> tuple[bytes, list[Entry]]:
    """The header of a file with the weights alone, and where their bytes are in the checkpoint, in order.

    Raises TensorFileDamaged: it holds none.
    """
    chosen = [one for one in header.entries if one.name.startswith(PREFIX)]
    if not chosen:
        raise TensorFileDamaged("it holds no weights of a model")
    return tensorfile.pack_header(_moved(chosen), {"format": "pt"}), chosen


def _moved(entries: list[Entry]) -> Iterator[Entry]:
    begin = 0
    for one in entries:
        moved = tensorfile.entry(one.name.removeprefix(PREFIX), one.dtype, one.shape, begin)
        begin = moved.end
        yield moved


def _bytes_of(file: BinaryIO, start: int, entries: list[Entry]) -> Iterator[bytes]:
    for one in entries:
        file.seek(start + one.begin)
        left = one.nbytes
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise TensorFileDamaged("it ended early")
            left -= len(chunk)
            yield chunk
