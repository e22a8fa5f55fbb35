"""From an exception of a training to its failure class."""

import errno

import pytest

from stoker.training.diagnosis import explain


@pytest.mark.parametrize(
    ("error", "klass"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("CUDA error: out of memory"), "gpu_out_of_memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device_error"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "device_error"),
        (ValueError("CUDA error"), "user_error"),
    ],
)
def test_the_error_decides(error: Exception, klass: str) -> None:
    assert explain(error).failure_class == klass
