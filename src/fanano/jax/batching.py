"""``jax.vmap``: the examples become the batch of one call. Private."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from .operators import Arrays, Options, results_of
from .partitioning import partitioned

__all__ = ["batched"]


def batched(operator: str, options: Options, operands: Arrays) -> Arrays:
    """``partitioned`` that knows what to do inside of a vmap."""
    found: Arrays = _mappable(operator, options)(operands)
    return found


@lru_cache(1024)
def _mappable(operator: str, options: Options) -> Any:
    @custom_vmap
    def function(operands: Arrays) -> Arrays:
        return partitioned(operator, options, operands)

    @function.def_vmap  # type: ignore[untyped-decorator, unused-ignore]
    def rule(examples: int, arguments: Any, operands: Arrays) -> Any:
        (mapped,) = arguments
        # Sinks are no rows of a batch, nor is a sum over one the gradient of each example; and
        # each drops what it would drop alone.
        of_sinks = mapped.get("sinks") or (operator != "attention" and "sinks" in operands)
        alone = of_sinks or "dropout" in operands
        several = _one_by_one if alone else _fold
        found = several(function, operator, options, examples, mapped, operands)
        return found, dict.fromkeys(found, True)

    return function


def _one_by_one(
    function: Any,
    operator: str,
    options: Options,
    examples: int,
    mapped: dict[str, bool],
    operands: Arrays,
) -> Arrays:
    del operator, options, examples
    shared = {name: x for name, x in operands.items() if not mapped[name]}
    each = {name: x for name, x in operands.items() if mapped[name]}
    found: Arrays = jax.lax.map(lambda x: function(shared | x), each)
    return found


def _fold(
    function: Any,
    operator: str,
    options: Options,
    examples: int,
    mapped: dict[str, bool],
    operands: Arrays,
) -> Arrays:
    """(N, B, ...) as (N B, ...), and back."""
    query = operands["query"]
    batch = query.shape[1 if mapped["query"] else 0]

    def folded(name: str, x: Any) -> Any:
        if not mapped[name]:
            if name == "sinks" or (name == "alibi_slopes" and x.ndim == 1):
                return x
            # A mask of all sequences is one of all examples, but for the gradient by it.
            if name == "attn_mask" and x.shape[0] == 1 and not options.grad_mask:
                return x
            x = jnp.broadcast_to(x, (examples, *x.shape))
        elif name == "alibi_slopes" and x.ndim == 2:
            x = x[:, None]
        if x.shape[1] != batch:  # one of the sequences of an example
            x = jnp.broadcast_to(x, (examples, batch, *x.shape[2:]))
        return x.reshape(examples * batch, *x.shape[2:])

    found: Arrays = function({name: folded(name, x) for name, x in operands.items()})
    alone = {
        name: jax.ShapeDtypeStruct(x.shape[1:] if mapped[name] else x.shape, x.dtype)
        for name, x in operands.items()
    }
    # A gradient by a mask that the sequences of an example share is their sum.
    for name, like in results_of(operator, options, alone).items():
        x = found[name].reshape(examples, batch, *found[name].shape[1:])
        if name == "dbias" and like.shape[0] == 1:
            x = x.sum(1)
        found[name] = x.reshape(examples, *like.shape)
    return found
