"""torch's scaled_dot_product_attention: its flash kernel, and its plain mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, Inputs
from ..cases import Case
from .peer import Peer, Prepared


def tensors(case: Case, one: Inputs) -> list[Any]:
    """The same memory as torch's tensors."""
    import torch

    if case.dtype != "bfloat16":
        return [torch.from_numpy(x) for x in one]
    # from_numpy does not know ml_dtypes.
    return [torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) for x in one]


def to_numpy(out: Any) -> Array:
    return np.asarray(out.double())


class Torch(Peer):
    """torch's own choice, which on CPUs is flash wherever it can be."""

    library = "torch"
    packages = ("torch",)

    def start(self, threads: int) -> str:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        return (
            f"torch.set_num_threads({threads}), no grad mode; its OpenMP threads spin for a few "
            "milliseconds after a call and are waited for"
        )

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        from torch.nn.functional import scaled_dot_product_attention

        options = {"is_causal": case.causal, "enable_gqa": case.heads != case.kv_heads}
        calls = [
            partial(scaled_dot_product_attention, *tensors(case, one), **options) for one in sets
        ]
        return Prepared(calls, to_numpy)

    def around(self) -> AbstractContextManager[Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(getattr(SDPBackend, self.backend))


class Flash(Torch):
    name = "torch flash"
    backend = "FLASH_ATTENTION"


class Math(Torch):
    name = "torch math"
    backend = "MATH"
