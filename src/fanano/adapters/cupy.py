"""CuPy arrays: refused by name until there are CUDA kernels, for their memory is a GPU's."""

from __future__ import annotations

import cupy


def accepts(argument: str, kind: type) -> bool:
    if issubclass(kind, cupy.ndarray):
        raise NotImplementedError(
            f"{argument} is a CuPy array, in a GPU's memory, and there are no CUDA kernels yet: "
            "cupy.asnumpy(x) copies it to the CPU's"
        )
    return False
