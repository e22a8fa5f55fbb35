"""Why a training ended without a result. Imports no torch: the API reads archives, whose errors these are."""

from stoker.errors import StokerError


class TrainingFailed(StokerError):
    """A trainer gives up, with a failure class, what was seen, and how to fix it."""

    code = "training_failed"

    def __init__(self, failure_class: str, evidence: str, fix: str) -> None:
        super().__init__(failure_class, evidence, fix)
        self.failure_class, self.evidence, self.fix = failure_class, evidence, fix

    def __str__(self) -> str:
        return f"{self.failure_class}: {self.evidence}; {self.fix}"


def nan_loss(evidence: str) -> TrainingFailed:
    """A training has diverged: a loss is NaN or an infinity."""
    return TrainingFailed(
        "nan_loss", evidence, "use a lower learning rate, a schedule that starts low, or precision: float32"
    )
