"""What a script hands in by ``stoker.current_run()``: checked where it is given, and agreeing with itself."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stoker
from stoker.errors import InvalidInput
from stoker.training.handover import plain
from stoker.workers import findings
from tests.support.scripts import Script, say


def hands_in() -> None:
    run = stoker.current_run()
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    run.result(loss=torch.tensor(0.25), history=[0.5, math.nan], accuracy=66.7)
    run.predictions(labels=[0, 1, 1], predicted=scores, classes=["cat", "dog"], probabilities=scores)


def test_what_is_handed_in_agrees_with_itself(tmp_path: Path) -> None:
    with Script(tmp_path, hands_in) as script:
        assert script.wait() == 0
    result, made = script.of_kind("result")[-1], script.of_kind("predictions")[-1]
    found = findings.read(script.scratch, result, made)
    assert (found.count, found.classes) == (3, ("cat", "dog"))
    assert found.document["accuracy"] == 2 / 3
    assert found.document["per_class"] == {"cat": 1.0, "dog": 0.5}
    assert (found.document["loss"], found.document["history"]) == (0.25, [0.5, None])
    assert found.document["notes"] == ["the script said accuracy 66.7"]


def hands_in_wrongly() -> None:
    run = stoker.current_run()
    wrong: list[dict[str, Any]] = [
        {"labels": [], "predicted": []},
        {"labels": [0, 1], "predicted": [0]},
        {"labels": [0.5], "predicted": [0]},
        {"labels": [0], "predicted": [-1]},
        {"labels": [0], "predicted": [2], "classes": ["a", "b"]},
        {"labels": ["cat"], "predicted": ["cat"]},
        {"labels": [0], "predicted": [0], "probabilities": [7.0]},
        {"labels": [0], "predicted": [0], "probabilities": [[math.nan]]},
        {"labels": [0, 1], "predicted": [0, 1], "probabilities": [[1.0], [1.0]]},
    ]
    for given in wrong:
        try:
            run.predictions(**given)
        except InvalidInput as error:
            say(error.field)


def test_predictions_that_cannot_be_are_refused_by_field(tmp_path: Path) -> None:
    with Script(tmp_path, hands_in_wrongly) as script:
        fields = list(script.printed())
    assert fields == ["labels", "predicted", "labels", "predicted", "predicted", "labels", *["probabilities"] * 3]
    assert script.of_kind("predictions") == []


def test_a_result_that_is_no_data_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"best\.model: a value of type Linear is no result"):
        plain({"model": nn.Linear(1, 1)}, "best")
