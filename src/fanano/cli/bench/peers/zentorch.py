"""AMD's zentorch, the operator that it puts under torch's attention in compiled models."""

from __future__ import annotations

import warnings
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
    groups = (*Peer.groups, "backward")

    def start(self, threads: int) -> str:
        import zentorch  # noqa: F401  (registers the operator)

        return torch.Torch().start(threads)

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        calls = [partial(attention, case, *torch.tensors(case, one)) for one in sets]
        return Prepared(calls, torch.to_array(sets[0]), "zentorch_sdpa")

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        with warnings.catch_warnings():  # of a derivative that is not there, as gradients() says
            warnings.filterwarnings("ignore", message=".*autograd kernel was not registered")
            return torch.gradients(partial(attention, case), case, one, dout)


def attention(case: Case, *inputs: Any) -> Any:
    """The first output; the other one is its log-sum-exp."""
    from torch import ops

    return ops.zentorch.zentorch_sdpa(*inputs, 0.0, case.causal)[0]
