"""``jax.nn.dot_product_attention``, computed by fanano."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

from . import calls

__all__ = ["dot_product_attention"]


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: str | None = None,
    return_residual: bool = False,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    dropout_p: float = 0.0,
    seed: Any = None,
    return_lse: bool = False,
    out_dtype: Any = None,
) -> Any:
    """What ``jax.nn.dot_product_attention`` computes, and options of fanano's beside.

    Everything said of ``fanano.jax.attention`` holds too: transformations, gradients (also by
    ``bias`` and ``sinks``), sharded arrays.

    Args:
        query: (B, T, N, H) or (T, N, H); float64, float32, bfloat16 or float16.
        key, value: (B, S, K, H) or (S, K, H), of the dtype of query. Query head n uses key head
            ``n // (N // K)``. The last axis of value may be another.
        bias: an array of one of these dtypes that broadcasts to (B, N, T, S), added to the logits.
        mask: a boolean one: True takes part. Both apply where both are given.
        scale: a number; None: ``1 / sqrt(H)``.
        is_causal: row t sees the keys s <= t, also where T and S differ (upper left).
        query_seq_lengths, key_value_seq_lengths: (B,) of int32: what is used of each sequence.
        local_window_size: (left, right): row t sees t - left <= s <= t + right; one number is both.
        implementation: None. XLA's and cuDNN's are ``jax.nn``'s.
        return_residual: also return the log-sum-exp as ``jax.nn`` does: (B, T, N) or (T, N), of the
            dtype of query, without gradient.
        softcap, alibi_slopes, sinks, dropout_p, seed: as for ``fanano.attention``.
        return_lse: also return the log-sum-exp as ``fanano.attention`` does: (B, N, T) or (N, T),
            float32 (float64 for float64), differentiable.
        out_dtype: "float32" for results that are not rounded.

    Returns:
        An array of the shape of query (its last axis is that of value); with ``return_residual`` or
        ``return_lse`` a tuple. A row that may attend to nothing is 0, with gradients of 0 and a
        log-sum-exp of -inf. NaN and infinities behind a mask reach nothing.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        NotImplementedError: as for ``fanano.jax.attention``.
    """
    if implementation is not None:
        raise ValueError(
            f"implementation must be None, for fanano's, got {implementation!r}; "
            "jax.nn.dot_product_attention has those of XLA and cuDNN"
        )
    if return_residual and return_lse:
        raise ValueError("return_residual and return_lse are two forms of the same: pass one")
    for argument, x in (("query", query), ("key", key), ("value", value)):
        shape = jnp.shape(x)
        if len(shape) not in (3, 4):
            raise ValueError(
                f"{argument} must have the axes (B, T, N, H) or (T, N, H), it has shape {shape}"
            )
    names = {"attn_mask": "mask" if bias is None else "bias"}
    with _renamed(names):
        found = calls.attention(
            query,
            key,
            value,
            attn_mask=_both(bias, mask),
            is_causal=is_causal,
            window_size=_window(local_window_size),
            q_offset=0,
            scale=scale,
            softcap=softcap,
            alibi_slopes=alibi_slopes,
            sinks=sinks,
            dropout_p=dropout_p,
            seed=seed,
            q_lengths=query_seq_lengths,
            kv_lengths=key_value_seq_lengths,
            return_lse=return_lse or return_residual,
            layout="bshd",
            out_dtype=out_dtype,
        )
    if not return_residual:
        return found
    out, lse = found
    return out, jax.lax.stop_gradient(jnp.swapaxes(lse, -1, -2).astype(jnp.result_type(query)))


def _both(bias: Any, mask: Any) -> Any:
    if mask is not None and jnp.result_type(mask) != jnp.bool_:
        dtype = jnp.result_type(mask)
        raise TypeError(f"mask must be boolean, it is {dtype}; what is added is bias")
    if bias is None:
        return mask
    if not jnp.issubdtype(dtype := jnp.result_type(bias), jnp.floating):
        hint = "; True where a key takes part is mask" if dtype == jnp.bool_ else ""
        raise TypeError(f"bias must be float64, float32, bfloat16 or float16, it is {dtype}{hint}")
    if mask is None:
        return bias
    try:
        return jnp.where(mask, calls.rounded(bias), -jnp.inf)
    except ValueError:
        raise ValueError(
            "bias and mask must broadcast against each other, they have the shapes "
            f"{jnp.shape(bias)} and {jnp.shape(mask)}"
        ) from None


def _window(size: Any) -> Any:
    """jax.nn hides keys near a row where a side is negative, and fanano shows all."""
    if isinstance(size, int) and not isinstance(size, bool):
        size = (size, size)
    if isinstance(size, tuple | list) and any(isinstance(x, int) and x < 0 for x in size):
        raise ValueError(f"local_window_size must be 0 or more on both sides, got {size}")
    return size


@contextmanager
def _renamed(names: dict[str, str]) -> Iterator[None]:
    """Errors that begin with the name of an argument name the caller's."""
    names = names | {
        "q_lengths": "query_seq_lengths",
        "kv_lengths": "key_value_seq_lengths",
        "window_size": "local_window_size",
    }
    try:
        yield
    except (TypeError, ValueError) as error:
        word, space, rest = str(error).partition(" ")
        if word not in names:
            raise
        raise type(error)(names[word] + space + rest) from None
