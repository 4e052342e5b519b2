"""jax.nn.dot_product_attention, jitted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, Inputs
from ..cases import Case
from .peer import Peer, Prepared


def arrays(one: Inputs) -> list[Any]:
    import jax

    return [jax.numpy.asarray(x) for x in one]


class Jax(Peer):
    name = "jax"
    library = "jax"
    packages = ("jax",)

    def start(self, threads: int) -> str:
        if "jax" in sys.modules:
            return "imported before the benchmark: as many threads as it took then"
        os.environ["NPROC"] = str(threads)  # XLA sizes its pool by it, once, at its first use
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax  # noqa: F401

        return f"NPROC={threads} before its import; its spinning threads are waited for"

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        import jax

        attend = jax.jit(partial(jax.nn.dot_product_attention, is_causal=case.causal))
        calls = []
        for one in sets:
            # Its layout has rows before heads.
            turned = arrays(Inputs(*(np.ascontiguousarray(x.swapaxes(1, 2)) for x in one)))
            calls.append(blocking(attend, turned))
        attend.lower(*turned).compile()
        return Prepared(calls, lambda out: np.asarray(out).swapaxes(1, 2))


def blocking(attend: Any, inputs: Sequence[Any]) -> Callable[[], Array]:
    return lambda: attend(*inputs).block_until_ready()
