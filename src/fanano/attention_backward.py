"""``fanano.attention_backward``: defaults, adapters, and the documentation. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _core
from .adapters import common_adapter, diagnosis, prepared_option, prepared_seed

__all__ = ["Gradients", "attention_backward"]


class Gradients(NamedTuple):
    """What ``attention_backward`` returns: a loss's gradients by the inputs of ``attention``."""

    dq: Any
    dk: Any
    dv: Any
    dbias: Any = None
    dsinks: Any = None


def attention_backward(
    dout: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    *,
    dlse: Any = None,
    grad_mask: bool = False,
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
    dropout_offset: Sequence[int] = (0, 0, 0, 0),
    q_lengths: Any = None,
    kv_lengths: Any = None,
    layout: str = "bhsd",
) -> Gradients:
    """The gradients of ``sum(dout * out) + sum(dlse * lse)`` by the inputs of ``attention``.

    ``out`` and ``lse`` are what ``fanano.attention(query, key, value, return_lse=True)`` gave with
    the same options; ``out`` may be the unrounded one of ``out_dtype="float32"``. Probabilities are
    computed again, tile by tile: memory beside inputs and results is linear in the sequence. Rows
    that see no key, padding, and what lies behind a mask have gradients of exactly 0 and never
    reach another's, NaN included. Arrays on a CUDA device are computed there, as by ``attention``.

    Args:
        dout: the gradient by ``out``, of its shape and dtype.
        query, key, value: as for ``attention``: (B, Hq, Sq, D), (B, Hkv, Sk, D), (B, Hkv, Sk, Dv)
            in layout ``"bhsd"``, of any strides, ranks 2 to 4.
        out: (B, Hq, Sq, Dv), of the dtype of ``query``, or float32.
        lse: (B, Hq, Sq), float32 (float64 for float64), heads before rows in both layouts.
        dlse: the gradient by ``lse``, of its shape and dtype; None: ``lse`` is used for nothing.
        grad_mask: also compute the gradient by ``attn_mask``, which must be additive and of the
            library of ``query``. It costs the products ``q k`` and ``dout v`` once more.
        attn_mask, is_causal, window_size, q_offset, scale, softcap, alibi_slopes, sinks, dropout_p,
            seed, dropout_offset, q_lengths, kv_lengths, layout: as they were for ``attention``;
            with dropout the seed must be given.

    Returns:
        ``Gradients``: ``dq``, ``dk`` and ``dv`` of the shape and dtype of ``query``, ``key`` and
        ``value``, those of shared key heads summed over their query heads; ``dbias`` of the shape
        and dtype of ``attn_mask``, summed over what it was broadcast to, or None; ``dsinks``,
        (Hq,), float32 (float64 for float64), or None without sinks. Sums are made in float32
        (float64 for float64), in an order that does not depend on the number of threads.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        NotImplementedError: a JAX array is traced, an array is one of CuPy's, or arrays are on a
            CUDA device where ``attention`` could not run either.
        RuntimeError: CUDA refuses a launch.

    Sources: Dao et al. 2022, "FlashAttention" (arXiv:2205.14135), algorithm 4; Dao 2023,
    "FlashAttention-2" (arXiv:2307.08691), algorithm 2.
    """
    arrays = {
        "query": query, "key": key, "value": value, "dout": dout, "out": out, "lse": lse,
    }  # fmt: skip
    if dlse is not None:
        arrays["dlse"] = dlse
    of_mask = {"attn_mask": attn_mask} if grad_mask and attn_mask is not None else {}
    adapter = common_adapter(**arrays, **of_mask)
    if adapter.prepare is not None:
        prepared = adapter.prepare(tuple(arrays), tuple(arrays.values()))
        arrays = dict(zip(arrays, prepared, strict=True))
    finish = None if adapter.finisher is None else adapter.finisher(query)
    query = arrays["query"]
    with diagnosis(adapter, cuda=True, **arrays):
        found = _core.attention_backward(
            arrays["dout"],
            query,
            arrays["key"],
            arrays["value"],
            arrays["out"],
            arrays["lse"],
            arrays.get("dlse"),
            adapter.empty,
            grad_mask,
            prepared_option("attn_mask", attn_mask, query),
            is_causal,
            window_size,
            prepared_option("q_offset", q_offset, query),
            scale,
            softcap,
            prepared_option("alibi_slopes", alibi_slopes, query),
            prepared_option("sinks", sinks, query),
            dropout_p,
            prepared_seed(seed),
            dropout_offset,
            prepared_option("q_lengths", q_lengths, query),
            prepared_option("kv_lengths", kv_lengths, query),
            layout,
            adapter.max_threads(),
        )
    if finish is None:
        return Gradients(*found)
    return Gradients(*(None if x is None else finish(x) for x in found))
