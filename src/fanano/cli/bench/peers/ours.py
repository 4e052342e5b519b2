"""fanano itself: on NumPy's arrays, and on those of torch and JAX for the cost of a call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

import fanano

from ..arrays import Array, Inputs
from ..cases import Case
from . import jax, torch
from .peer import Peer, Prepared


class Fanano(Peer):
    name = "fanano"
    library = "fanano"
    algorithm = "flash"
    groups = (*Peer.groups, "backward", "sizes")
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def start(self, threads: int) -> str:
        fanano.set_num_threads(threads)
        return f"fanano.set_num_threads({threads}); its threads sleep between calls"

    def arrays(self, case: Case, one: Inputs) -> Sequence[Any]:
        return one

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        attend = partial(fanano.attention, is_causal=case.causal, algorithm=self.algorithm)
        return Prepared([partial(attend, *self.arrays(case, one)) for one in sets], lambda x: x)

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        out, lse = fanano.attention(*one, is_causal=case.causal, return_lse=True)
        compute = partial(fanano.attention_backward, is_causal=case.causal)
        return Prepared([partial(compute, dout, *one, out, lse)], lambda found: found[:3])


class Safe(Fanano):
    """Materialised scores, the yardstick of the demo too."""

    name = "fanano safe"
    algorithm = "safe"
    groups = ("prefill", "memory")
    devices = ("cpu",)


class OnTorch(Fanano):
    name = "fanano on torch"
    library = "torch"
    packages = ("torch",)
    groups = ("call", "backward")

    def start(self, threads: int) -> str:
        return torch.Torch().start(threads)

    def arrays(self, case: Case, one: Inputs) -> Sequence[Any]:
        return torch.tensors(case, one)

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        return Prepared(super().prepare(case, sets).calls, torch.to_array(sets[0]))

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        from fanano.torch import attention

        return torch.gradients(partial(attention, is_causal=case.causal), case, one, dout)


class OnJax(Fanano):
    name = "fanano on jax"
    library = "jax"
    packages = ("jax",)
    groups = ("call",)
    devices = ("cpu",)

    def start(self, threads: int) -> str:
        return jax.Jax().start(threads)

    def arrays(self, case: Case, one: Inputs) -> Sequence[Any]:
        return jax.arrays(one)

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        return Prepared(super().prepare(case, sets).calls, np.asarray)
