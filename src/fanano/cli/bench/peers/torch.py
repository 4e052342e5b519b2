"""torch's scaled_dot_product_attention: its flash kernel, and its plain mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar

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
    """What both of its back ends share."""

    backend: ClassVar[str]
    library = "torch"
    packages = ("torch",)

    def start(self, threads: int) -> str:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        # Its OpenMP threads spin for some ten milliseconds after a call; timing.settled() waits.
        return (
            f"torch.set_num_threads({threads}), no grad mode; its spinning threads are waited for"
        )

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        from torch.nn.functional import scaled_dot_product_attention

        shared = case.heads != case.kv_heads
        attend = partial(scaled_dot_product_attention, is_causal=case.causal, enable_gqa=shared)
        return Prepared([partial(attend, *tensors(case, one)) for one in sets], to_numpy)

    def around(self) -> AbstractContextManager[Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(getattr(SDPBackend, self.backend))


class Flash(Torch):
    name = "torch flash"
    backend = "FLASH_ATTENTION"


class Math(Torch):
    name = "torch math"
    backend = "MATH"
