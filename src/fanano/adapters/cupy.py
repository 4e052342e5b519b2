"""CuPy arrays: refused by name. They are a GPU's, whose kernels take torch tensors."""

from __future__ import annotations

import cupy


def accepts(argument: str, kind: type) -> bool:
    if issubclass(kind, cupy.ndarray):
        raise NotImplementedError(
            f"{argument} is a CuPy array, in a GPU's memory, where fanano takes torch tensors "
            "alone yet: torch.from_dlpack(x) shares its memory, cupy.asnumpy(x) copies it to the "
            "CPU's"
        )
    return False
