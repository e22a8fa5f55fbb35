"""What a script or notebook says of itself at its end: read with limits, marked as self-reported, never counted again.

Its predictions are its own word too; where it gives no accuracy, theirs is taken.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stoker.jobs import predictions
from stoker.jobs.attempts import PredictionsRecord
from stoker.quoting import quoted
from stoker.workers.findings import RESULT_LIMIT_BYTES, read_document, read_rows


@dataclass(frozen=True, slots=True)
class OwnFindings:
    """What can be kept of it; all of it may be missing."""

    document: dict[str, Any] | None = None
    predictions: PredictionsRecord | None = None
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the job's events."""
        accuracy = (self.document or {}).get("accuracy")
        return f"accuracy {accuracy:.2%}, as it says" if _is_share(accuracy) else "exit code 0"


def read(scratch: Path, result: dict[str, Any] | None, made: dict[str, Any] | None) -> OwnFindings:
    """Read the result and the predictions that were announced, if any were.

    Raises FindingsRefused.
    """
    if result is None and made is None:
        return OwnFindings()
    document = read_document(scratch, result["path"], RESULT_LIMIT_BYTES) if result else {}
    notes = []
    record = None
    if made is not None:
        record, counted = _predictions(scratch, made, document)
        document.setdefault("accuracy", counted)
    if (accuracy := document.get("accuracy")) is not None and not _is_share(accuracy):
        notes.append(f"its accuracy {quoted(accuracy, 40)} is not between 0 and 1: kept, and compared with no other")
    return OwnFindings(document | {"self_reported": True}, record, tuple(notes))


def _predictions(scratch: Path, made: dict[str, Any], document: dict[str, Any]) -> tuple[PredictionsRecord, float]:
    """The predictions, and the share of them that is right."""
    packed, classes = read_rows(scratch, made, document)
    right = sum(label == predicted for label, predicted, _ in predictions.unpack(packed))
    return PredictionsRecord(made["count"], packed, classes, None), right / made["count"]


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]  # a number: the line above says so
