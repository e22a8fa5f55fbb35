"""From any exception of a training to a failure class."""

import errno
import traceback

from stoker.errors import StokerError
from stoker.training.failure import TrainingFailed


def explain(error: BaseException) -> TrainingFailed:
    """Turn any exception of a training into a failure with one class."""
    if isinstance(error, TrainingFailed):
        return error
    if isinstance(error, StokerError):
        return TrainingFailed("user_error", str(error), "change the job as the message says")
    kind, fix = _classify(error)
    return TrainingFailed(kind, last_lines(error, 12 if kind == "user_error" else 3), fix)


def _classify(error: BaseException) -> tuple[str, str]:
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full", "free space on the worker"
    if type(error).__name__ == "OutOfMemoryError" or "CUDA error: out of memory" in text:  # torch's, the driver's
        return "gpu_out_of_memory", "use a smaller model, batch_size or image size"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "host_out_of_memory", "ask for more memory, or use a smaller batch_size"
    if isinstance(error, RuntimeError) and ("CUDA error" in text or "cuDNN error" in text):
        return "device_error", ""  # the worker tries the device, and knows then what is to be done
    if isinstance(error, ImportError):
        return "import_error", "install the module on the worker"
    return "user_error", "see the traceback"


def last_lines(error: BaseException, count: int) -> str:
    """Return the last ``count`` lines of the traceback, at most 4,000 characters."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    return "\n".join(lines[-count:])[-4000:]
