"""What a script hands in at its end: predictions and result, in the files that the built-in recipes write too."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stoker.errors import InvalidInput
from stoker.quoting import quoted
from stoker.training import tensorfile
from stoker.training.evaluate import Evaluation
from stoker.training.speaker import Speaker

MOST_CLASSES = 65_535  # a prediction is stored in two bytes
_RESULT_LIMIT_BYTES = 30 * 10**6
_DEEPEST = 50


class Handover:
    """Gathers both, and announces the result again whenever there is more."""

    def __init__(self, scratch: Path, speaker: Speaker) -> None:
        """Write into ``scratch``."""
        self._scratch, self._speaker = scratch, speaker
        self._said: dict[str, Any] = {}
        self._counted: dict[str, Any] = {}

    def predictions(self, labels: Any, predicted: Any, classes: Any, probabilities: Any) -> None:
        """See ``Run.predictions``."""
        given = _integers("labels", labels)
        guessed = _chosen(predicted)
        names = _names(classes, given, guessed)
        for field, numbers in (("labels", given), ("predicted", guessed)):
            if len(numbers) != len(given):
                raise InvalidInput(field, f"{len(numbers):,} of them, {len(given):,} labels", "give one for each image")
            if numbers.min() < 0 or numbers.max() >= len(names):
                span = f"from {int(numbers.min())} to {int(numbers.max())}"
                raise InvalidInput(field, f"{span}, of {len(names):,} classes", f"use 0 to {len(names) - 1}")
        found = Evaluation(given, guessed, _probabilities(probabilities, guessed), math.nan)
        tensorfile.write(self._scratch / "predictions.bin", b"", [found.rows()])
        self._speaker.send("predictions", path="predictions.bin", count=len(given))
        summary = found.summary(names)
        del summary["loss"]
        if probabilities is None:
            summary["notes"].append("no probabilities were given: all are shown as 1")
        self._counted = {**summary, "classes": names, "test_images": len(given)}
        self._write()

    def result(self, values: Mapping[str, Any]) -> None:
        """See ``Run.result``."""
        said = {name: plain(value, name) for name, value in values.items()}
        if len(json.dumps(said)) > _RESULT_LIMIT_BYTES:
            raise InvalidInput("run.result", f"more than {_RESULT_LIMIT_BYTES:,} bytes", "write large things to files")
        self._said |= said
        self._write()

    def _write(self) -> None:
        document = {**self._counted, **self._said}
        if self._counted and document["accuracy"] != self._counted["accuracy"]:
            said, counted = self._said["accuracy"], self._counted["accuracy"]
            document |= {
                "accuracy": counted,
                "notes": [*self._counted["notes"], f"the script said accuracy {quoted(said)}"],
            }
        tensorfile.write(self._scratch / "result.json", b"", [json.dumps(document).encode()])
        self._speaker.send("result", path="result.json")


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """Return a value as JSON can hold it; NaN and infinities become None. Raises InvalidInput."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().tolist()
    elif isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(key): plain(item, f"{name}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [plain(item, f"{name}.{index}", depth + 1) for index, item in enumerate(value)]
    kind = type(value).__name__
    raise InvalidInput(name, f"a value of type {kind} is no result", "give numbers, texts, lists, dicts or arrays")


def _tensor(field: str, value: Any) -> Tensor:
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):  # one of each batch
            return torch.cat([one.detach().cpu().reshape(one.shape or (1,)) for one in value])
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(field, f"no numbers: {str(error)[:200]}", "give a tensor, an array or a list") from None
    if not tensor.numel():
        raise InvalidInput(field, "empty", "give one for each test image")
    return tensor


def _integers(field: str, value: Any) -> Tensor:
    tensor = _tensor(field, value)
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        what = f"shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
        raise InvalidInput(field, what, "give one integer for each test image")
    return tensor.long()


def _chosen(predicted: Any) -> Tensor:
    tensor = _tensor("predicted", predicted)
    return tensor.argmax(1) if tensor.ndim == 2 else _integers("predicted", tensor)


def _names(classes: Sequence[Any] | None, *numbers: Tensor) -> list[str]:
    if classes is None:
        classes = range(min(1 + max(int(one.max()) for one in numbers), MOST_CLASSES))
    names = [str(name)[:500] for name in classes]
    if not 0 < len(names) <= MOST_CLASSES:
        raise InvalidInput("classes", f"{len(names):,} of them", f"give 1 to {MOST_CLASSES:,} names")
    return names


def _probabilities(given: Any, predicted: Tensor) -> Tensor:
    if given is None:
        return torch.ones(len(predicted))
    tensor = _tensor("probabilities", given).float()
    columns = tensor.shape[1] if tensor.ndim == 2 else int(predicted.max()) + 1
    if len(tensor) != len(predicted) or tensor.ndim > 2 or columns <= predicted.max():
        shape = f"shape {tuple(tensor.shape)} for {len(predicted):,} images"
        raise InvalidInput("probabilities", shape, "give one for each image, or one for each image and class")
    if tensor.ndim == 2:
        tensor = tensor.gather(1, predicted[:, None])[:, 0]
    if not bool(((tensor >= 0) & (tensor <= 1.001)).all()):  # also false for NaN
        raise InvalidInput("probabilities", "not all from 0 to 1", "give those of softmax, not scores")
    return tensor
