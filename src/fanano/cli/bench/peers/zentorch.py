"""AMD's zentorch, the operator that it puts under torch's attention in compiled models."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..arrays import Array, Inputs
from ..cases import Case
from . import torch
from .peer import Peer, Prepared


class Zentorch(Peer):
    name = "zentorch"
    library = "zentorch"
    packages = ("torch", "zentorch")

    def start(self, threads: int) -> str:
        import zentorch  # noqa: F401  (registers the operator)

        return torch.Torch().start(threads)

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        from torch import ops

        call = ops.zentorch.zentorch_sdpa
        calls = [partial(call, *torch.tensors(case, one), 0.0, case.causal) for one in sets]
        return Prepared(calls, first, "zentorch_sdpa")


def first(outputs: Any) -> Array:
    """Attention; the other output is its log-sum-exp."""
    return torch.to_numpy(outputs[0])
