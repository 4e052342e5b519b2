"""fanano for JAX: compiled, differentiable, mapped, over several devices.

Importing this imports JAX. CPU devices, and CUDA devices where the module has kernels for them.
"""

from __future__ import annotations

from typing import Any

from . import calls
from .nn import dot_product_attention

__all__ = ["attention", "dot_product_attention"]


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    attn_mask: Any = None,
    is_causal: bool = False,
    window_size: tuple[int | None, int | None] | None = None,
    q_offset: Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    dropout_p: float = 0.0,
    seed: Any = None,
    dropout_offset: Any = (0, 0, 0, 0),
    q_lengths: Any = None,
    kv_lengths: Any = None,
    return_lse: bool = False,
    layout: str = "bhsd",
    algorithm: str = "flash",
    out_dtype: Any = None,
    out: Any = None,
) -> Any:
    """``fanano.attention`` for JAX arrays, inside and outside of JAX's transformations.

    Arguments, shapes, dtypes and results are those of ``fanano.attention``, which calls this where
    an array is traced. Works in ``jax.jit``, ``grad``, ``vjp``, ``vmap``, ``checkpoint``,
    ``shard_map`` and ``export``, and on arrays whose batch or heads are sharded, which are not
    gathered. Computed in XLA's own threads.

    Gradients: by query, key, value, an additive ``attn_mask`` (summed over what it was broadcast
    to) and ``sinks``, through the output and the log-sum-exp. Kept for the backward pass: inputs,
    output, log-sum-exp; nothing quadratic. Gradients have the same bits for any number of threads.

    Args:
        query, key, value, attn_mask: JAX arrays, or what ``jnp.asarray`` makes some of.
        q_lengths, kv_lengths, q_offset, alibi_slopes, sinks: may be traced. Then lengths beyond
            their range are clamped to it, for no one can refuse them.
        scale, softcap: numbers: they are compiled in.
        dropout_p: a number: it is compiled in.
        seed: an integer, or an array of one, which may be traced: ``jax.random.bits(key)``. Arrays
            that are sharded are dropped from as if they were not; inside of ``shard_map`` each
            device says by ``dropout_offset`` where its part begins.
        dropout_offset: four integers, which may be traced, as by ``jax.lax.axis_index``.

    Returns:
        As ``fanano.attention``; with ``return_lse`` a tuple of output and log-sum-exp.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it. Shapes, dtypes and
            options are checked while JAX traces, before XLA is reached; what only the numbers of
            a traced array tell (slopes that are not finite) is XLA's error, with our words.
        NotImplementedError: a derivative by ``alibi_slopes``; second derivatives; an
            algorithm other than "flash"; a build without handlers (docs/jax.md). Forward-mode
            derivatives are refused by JAX, with a TypeError.

    Source: Dao 2023, "FlashAttention-2" (arXiv:2307.08691), algorithms 1 and 2.
    """
    return calls.attention(
        query,
        key,
        value,
        attn_mask=attn_mask,
        is_causal=is_causal,
        window_size=window_size,
        q_offset=q_offset,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        dropout_p=dropout_p,
        seed=seed,
        dropout_offset=dropout_offset,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
        return_lse=return_lse,
        layout=layout,
        algorithm=algorithm,
        out_dtype=out_dtype,
        out=out,
    )
