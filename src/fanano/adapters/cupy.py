"""CuPy arrays: for attention and its gradients alone.

It runs on CuPy's current stream of the array's device, after what that was given before. Results
and a workspace are CuPy's, from its pool; bfloat16 is ``ml_dtypes.bfloat16``, where CuPy has it.
"""

from __future__ import annotations

import secrets
from typing import Any

import cupy

from .numpy import dtype_name as dtype_name  # its dtypes are NumPy's
from .numpy import dtype_named

library = "cupy"
prepare = None
written = None
device_option = None
finisher = None


def accepts(argument: str, kind: type) -> bool:
    if kind is cupy.ndarray:
        return True
    if not issubclass(kind, cupy.ndarray):
        return False
    raise TypeError(
        f"{argument} is a {kind.__module__}.{kind.__qualname__}; only plain CuPy arrays are "
        "supported: cupy.asarray(x), if its numbers say all there is to say"
    )


def stream(array: Any) -> int:
    current: int = cupy.cuda.get_current_stream(array.device.id).ptr
    return current or 1  # CUDA calls the legacy default stream 0 as well; DLPack does not


def empty(shape: tuple[int, ...], dtype: str, device: int, stream: int) -> Any:
    with cupy.cuda.Device(device):  # whose current stream is the one given
        return cupy.empty(shape, dtype_named(dtype))


def check_out(out: Any) -> None:
    """Nothing: CuPy has no read-only arrays."""


def diagnose(cuda: bool, /, **arrays: Any) -> None:
    for argument, array in arrays.items():
        if isinstance(array, cupy.ndarray) and not cuda:
            raise NotImplementedError(
                f"{argument} is a CuPy array, on device {array.device.id}: of fanano only "
                "attention and its gradients run there; cupy.asnumpy(x) copies it to the CPU"
            )


def fresh_seed(query: Any) -> int:
    return secrets.randbits(64)


def max_threads() -> int:
    return 0
