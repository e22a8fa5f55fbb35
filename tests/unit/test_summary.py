"""A result on the screen."""

import pytest

from stoker.client.records import Result
from stoker.client.summary import print_result


def test_a_class_without_test_images_and_a_missing_confusion_are_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    found = Result.of({"accuracy": 0.5, "test_images": 4, "per_class": {"cat": 0.5, "dog": None}, "confusion": None})
    print_result(found)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Accuracy for class: cat   is 50.0 %",
        "Accuracy for class: dog   is unknown",
    ]
    assert found.confusion is None
