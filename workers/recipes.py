"""A built-in recipe, as one of the kinds of a job: what its trainer is told, and what its end is worth."""

from dataclasses import dataclass, field
from pathlib import Path

from stoker.jobs.attempts import Ending, PredictionsRecord
from stoker.jobs.lifecycle import Outcome
from stoker.jobs.spec import training_config
from stoker.training.config import DatasetSource, Task
from stoker.workers import findings
from stoker.workers.findings import FindingsRefused
from stoker.workers.interpreters import Interpreter, of_worker
from stoker.workers.orders import Order
from stoker.workers.preparation import Preparation
from stoker.workers.runs import Run
from stoker.workers.storing import Storing
from stoker.workers.supervision import Sight
from stoker.workers.verdict import failed, is_complete, judge


@dataclass(frozen=True, slots=True)
class Recipe:
    """One attempt at a built-in recipe."""

    preparation: Preparation
    run: Run
    scratch: Path
    source: DatasetSource  # its data, prepared
    interpreter: Interpreter = field(default_factory=of_worker)

    def order(self) -> Order:
        """All that its trainer is told, once its checkpoint is there.

        Raises Interrupted, AttemptClosed, OSError.
        """
        claimed, preparation = self.run.claimed, self.preparation
        checkpoint = preparation.fetch_checkpoint(self.run, self.scratch)
        task = Task(
            kind="train",
            config=training_config(claimed.spec),
            dataset=self.source,
            scratch=str(self.scratch),
            checkpoint=checkpoint,
            threads=max(1, int(claimed.spec.resources.cpus)),
            device=preparation.device(claimed),
            send_images=True,
        )
        own = {"HOME": str(self.scratch), "TMPDIR": str(self.scratch)}
        return Order(
            id=str(self.run.id),
            task=task.to_document(),
            environment=preparation.environment_of(claimed, own),
            scratch=str(self.scratch),
            title=f"job {claimed.job_number}",
            deadline=self.run.deadline,
            confinement=preparation.bounds.confinement(
                self.scratch,
                network=claimed.spec.network == "open",
                cpus=claimed.spec.resources.cpus,
                memory_bytes=claimed.spec.resources.memory,
                read_only=[self.source.prepared] if self.source.prepared else [],
                devices=preparation.inventory.files(claimed.device_uuids),
            ),
        )

    def ending(self, sight: Sight, storing: Storing) -> Ending:
        """Turn what was seen into an ending; a result counts only once it was checked.

        Raises AttemptClosed, and what the database raises.
        """
        if not is_complete(sight) or sight.result is None or sight.predictions is None:
            return judge(self.run.asked, sight)
        try:
            found = findings.read(self.scratch, sight.result, sight.predictions)
            sprite = storing.images(sight.images) if sight.images and sight.images["count"] == found.count else None
        except FindingsRefused as refusal:
            return failed("user_error", f"its result was refused: {refusal}")
        made = PredictionsRecord(found.count, found.packed, found.classes, sprite)
        accuracy = f"accuracy {found.document['accuracy']:.2%}"
        return Ending(Outcome.SUCCEEDED, accuracy, result=found.document, predictions=made)
