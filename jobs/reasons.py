"""Why a job waits, as a stable code and one sentence."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason; ``code`` is stable, programs may match on it."""

    code: str
    sentence: str


HELD = Reason("held", "held; `stoker release` lets it go on")
BACKING_OFF = Reason("backing_off", "it failed and is tried again after a pause")
WAITS_FOR_PARENTS = Reason("after", "waits for the jobs named in `after`")
BROKER_DOWN = Reason("broker_down", "Redis does not answer; jobs start when it is back")
NO_WORKER = Reason("no_worker", "no worker is live that takes new jobs; see `stoker workers`")
NEXT = Reason("next", "it starts with the next pass of the dispatcher")
GPU_SOONER = Reason("gpu_sooner", "a CPU is free, but on the next GPU it would end sooner")
