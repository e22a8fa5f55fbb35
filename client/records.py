"""What a job leaves behind, as values: its result, its metrics, its predictions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """How well the final weights do on the test images. What a script says of itself may have any of these, or none."""

    accuracy: float | None  # share of the test images, 0 to 1; None: a script did not say
    loss: float | None
    per_class: dict[str, float | None]  # class name -> share of its test images; None: it has none
    confusion: list[list[int]] | None  # [true class][predicted class] -> images; None: more than 500 classes
    classes: list[str]
    test_images: int | None
    epochs: int | None
    train_seconds: float | None
    device: str | None
    checkpoint: int | None
    document: dict[str, Any]  # all that the server sent

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Result":
        """Read the API's ``result``."""
        known: dict[str, Any] = {name: document.get(name) for name in cls.__dataclass_fields__ if name != "document"}
        known |= {"per_class": document.get("per_class") or {}, "classes": document.get("classes") or []}
        return cls(**known, document=document)

    @property
    def self_reported(self) -> bool:
        """Whether it is the word of the job's own code, which nobody has counted again."""
        return bool(self.document.get("self_reported"))


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the steps of a job."""

    steps: list[int]
    values: list[float | None]  # None: it was not a finite number
    downsampled: bool = False  # more than 2,000 points: the least and greatest of each bucket


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the final weights said of one test image."""

    index: int  # in the test images
    label: str
    predicted: str
    probability: float
    correct: bool


class Predictions:
    """The predictions of one job that match a filter; iterating fetches page after page."""

    def __init__(self, fetch: Callable[[str | None], dict[str, Any]]) -> None:
        self._fetch = fetch
        self._first = fetch(None)
        self.count: int = self._first["count"]  # of all test images
        self.matching: int = self._first["matching"]  # of those that pass the filter
        self.accuracy: float = self._first["accuracy"]  # counted over all stored predictions
        self.classes: list[str] = self._first["classes"]

    def __len__(self) -> int:
        return self.matching

    def __iter__(self) -> Iterator[Prediction]:
        page = self._first
        while True:
            for item in page["items"]:
                yield Prediction(**{name: item[name] for name in Prediction.__dataclass_fields__})
            if page["next"] is None:
                return
            page = self._fetch(page["next"])
