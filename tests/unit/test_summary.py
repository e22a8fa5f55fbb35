"""A result on the screen."""

import pytest

from stoker.client.records import Result
from stoker.client.summary import print_result
from stoker.client.use import advice


def test_a_class_without_test_images_and_a_missing_confusion_are_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    found = Result.of({"accuracy": 0.5, "test_images": 4, "per_class": {"cat": 0.5, "dog": None}, "confusion": None})
    print_result(found)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Accuracy for class: cat   is 50.0 %",
        "Accuracy for class: dog   is unknown",
    ]
    assert found.confusion is None


@pytest.mark.parametrize(("ran_seconds", "told"), [(60.0, "--memory 100MB would do"), (3.0, None), (None, None)])
def test_less_memory_is_advised_only_where_it_was_looked_at_long_enough(
    ran_seconds: float | None, told: str | None
) -> None:
    used = {"memory_bytes": 50 * 10**6, "ran_seconds": ran_seconds}
    assert advice({"asked": {"memory": 10**9}, "used": used}) == told
