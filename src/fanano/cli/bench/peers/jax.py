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


def arrays(one: Sequence[Array]) -> list[Any]:
    import jax

    return [jax.numpy.asarray(x) for x in one]


class Jax(Peer):
    name = "jax"
    library = "jax"
    packages = ("jax",)
    groups = (*Peer.groups, "backward")

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
        calls = [blocking(attend, rows_before_heads(one)) for one in sets]
        attend.lower(*rows_before_heads(sets[0])).compile()
        return Prepared(calls, lambda out: np.asarray(out).swapaxes(1, 2))

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        import jax

        attend = partial(jax.nn.dot_product_attention, is_causal=case.causal)
        *inputs, upstream = rows_before_heads([*one, dout])
        # What jax.grad runs, in its two halves: a pullback is a tree of what forward kept.
        _, pullback = jax.jit(partial(jax.vjp, attend))(*inputs)
        pull = jax.jit(lambda pullback, upstream: pullback(upstream))

        def call() -> Any:
            found = pull(pullback, upstream)
            for x in found:
                x.block_until_ready()
            return found

        return Prepared([call], lambda found: [np.asarray(x).swapaxes(1, 2) for x in found])


def rows_before_heads(one: Sequence[Array]) -> list[Any]:
    """Its layout."""
    return arrays([np.ascontiguousarray(x.swapaxes(1, 2)) for x in one])


def blocking(attend: Any, inputs: Sequence[Any]) -> Callable[[], Array]:
    return lambda: attend(*inputs).block_until_ready()
