"""What ``state_dict()`` gives, of any object -> tensors by name and a JSON document, and back. Nothing is executed.

Only data can be kept: tensors, arrays, numbers, texts, bytes, and lists, tuples, sets and dicts of them.
"""

import base64
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.errors import InvalidInput
from stoker.training.checkpoint import TORCH_DTYPES

Tensors = dict[str, Tensor]
_STORED = set(TORCH_DTYPES.values())
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def pack(value: Any, name: str, tensors: Tensors) -> Any:
    """Return ``value`` as JSON; its tensors and arrays go into ``tensors`` (not as copies), named after ``name``.

    Raises InvalidInput for what is not data.
    """
    for kinds, packer in _PACKERS:
        if isinstance(value, kinds):
            return packer(value, name, tensors)
    return _refuse(value, name)


def unpack(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what ``pack`` was given, with tensors of their own on the CPU.

    Raises KeyError, TypeError or ValueError for what ``pack`` did not make.
    """
    if isinstance(document, list):
        return [unpack(item, tensors) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, content),) = document.items()
    return _UNPACKERS[kind](content, tensors)


def _pack_tensor(value: Tensor, name: str, tensors: Tensors) -> Any:
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        _refuse(value, name)
    value = value.detach()
    if value.dtype in _STORED:
        return {"tensor": _add(value, name, tensors)}
    raw = value.contiguous().view(-1).view(torch.uint8)  # complex numbers, 8-bit floats: their bytes
    return {"raw": [_add(raw, name, tensors), str(value.dtype), list(value.shape)]}


def _pack_array(value: np.ndarray[Any, Any], name: str, tensors: Tensors) -> Any:
    owned = value if value.flags.c_contiguous and value.flags.writeable else value.copy()
    try:
        return {"array": _pack_tensor(torch.from_numpy(owned), name, tensors)}
    except TypeError:
        return _refuse(value, name)


def _pack_scalar(value: np.generic, name: str, _tensors: Tensors) -> Any:
    return {"scalar": [value.item(), value.dtype.str]} if value.dtype.kind in "biuf" else _refuse(value, name)


def _pack_mapping(value: Mapping[Any, Any], name: str, tensors: Tensors) -> Any:
    kind = "counter" if isinstance(value, Counter) else "ordered" if isinstance(value, OrderedDict) else "dict"
    items = [[pack(key, name, tensors), pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]
    return {kind: items}


def _pack_items(value: Any, name: str, tensors: Tensors) -> list[Any]:
    return [pack(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]


def _add(tensor: Tensor, name: str, tensors: Tensors) -> str:
    while name in tensors:
        name += "'"  # the keys 1 and "1" look alike
    tensors[name] = tensor
    return name


def _refuse(value: Any, name: str) -> Any:
    kind = type(value).__name__
    fix = "give its state_dict() only tensors, arrays, numbers, texts, lists and dicts, or leave it out of run.resume"
    raise InvalidInput(name, f"a value of type {kind} cannot be kept in a checkpoint", fix)


def _unpack_raw(content: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    name, dtype, shape = content
    return tensors[name].clone().view(_DTYPES[dtype]).view(shape)


def _pairs(content: Any, tensors: Mapping[str, Tensor]) -> list[tuple[Any, Any]]:
    return [(unpack(key, tensors), unpack(item, tensors)) for key, item in content]


_PACKERS: tuple[tuple[Any, Callable[[Any, str, Tensors], Any]], ...] = (
    (np.generic, _pack_scalar),  # first: some are Python's floats too
    ((type(None), bool, str, int, float), lambda value, *_: value),
    (Tensor, _pack_tensor),
    (np.ndarray, _pack_array),
    (Mapping, _pack_mapping),
    (list, _pack_items),
    (tuple, lambda value, name, tensors: {"tuple": _pack_items(value, name, tensors)}),
    ((set, frozenset), lambda value, name, tensors: {"set": _pack_items(sorted(value, key=repr), name, tensors)}),
    (deque, lambda value, name, tensors: {"deque": [_pack_items(value, name, tensors), value.maxlen]}),
    (bytes, lambda value, *_: {"bytes": base64.b64encode(value).decode()}),
    (torch.dtype, lambda value, *_: {"dtype": str(value)}),
    (torch.device, lambda value, *_: {"device": str(value)}),
)
_UNPACKERS: Mapping[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "scalar": lambda content, _: np.dtype(content[1]).type(content[0]),
    "tensor": lambda content, tensors: tensors[content].clone(),
    "raw": _unpack_raw,
    "array": lambda content, tensors: unpack(content, tensors).numpy(),
    "dict": lambda content, tensors: dict(_pairs(content, tensors)),
    "ordered": lambda content, tensors: OrderedDict(_pairs(content, tensors)),
    "counter": lambda content, tensors: Counter(dict(_pairs(content, tensors))),
    "tuple": lambda content, tensors: tuple(unpack(content, tensors)),
    "set": lambda content, tensors: set(unpack(content, tensors)),
    "deque": lambda content, tensors: deque(unpack(content[0], tensors), content[1]),
    "bytes": lambda content, _: base64.b64decode(content),
    "dtype": lambda content, _: _DTYPES[content],
    "device": lambda content, _: torch.device(content),
}
