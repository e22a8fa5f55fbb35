"""The last that a supervisor does with a trainer."""

import time

from stoker.workers.trainers import Trainer

KILL_SECONDS = 10.0


def end(trainer: Trainer) -> None:
    """Kill what is left of a trainer, see it gone, and let go of it."""
    until = time.monotonic() + KILL_SECONDS
    if trainer.status is None:
        trainer.kill()
    while not trainer.gone and time.monotonic() < until:
        trainer.wait(0.2)
    trainer.close()
