"""The judge of results: attention in float64, and what may differ from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .arrays import Array, Inputs
from .cases import UNIT


def exact(
    arrays: Inputs,
    *,
    is_causal: bool = False,
    window_size: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    attn_mask: Any = None,
) -> Array:
    """Attention in float64 with fanano's options, one head at a time: its scores fit anywhere."""
    query, key, value = arrays
    batch, heads, rows, dim = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    position = np.arange(rows)[:, None] + keys - rows
    distance = position - np.arange(keys)
    visible = np.ones((rows, keys), dtype=bool)
    if is_causal:
        visible &= distance >= 0
    if window_size is not None:
        left, right = window_size
        visible &= (distance <= left) & (distance >= -right)
    mask = None if attn_mask is None else np.broadcast_to(attn_mask, (batch, heads, rows, keys))
    out = np.empty(query.shape)
    for b, h in np.ndindex(batch, heads):
        q, k, v = (
            x.astype(np.float64) for x in (query[b, h], key[b, h // group], value[b, h // group])
        )
        scores = q @ k.T / math.sqrt(dim)
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        if alibi_slopes is not None:
            scores -= float(alibi_slopes[h]) * abs(distance)
        seen = visible
        if mask is not None and mask.dtype == np.bool_:
            seen = visible & mask[b, h]
        elif mask is not None:
            scores += mask[b, h]
        scores = np.where(seen, scores, -np.inf)
        sink = -np.inf if sinks is None else float(sinks[h])
        top = np.maximum(scores.max(axis=-1, keepdims=True), sink)
        weights = np.exp(scores - top)
        out[b, h] = weights @ v / (weights.sum(axis=-1, keepdims=True) + np.exp(sink - top))
    return out


def judge(out: Array, reference: Array, arrays: Inputs, dtype: str) -> dict[str, float]:
    """The largest difference of all elements, and of all rows the largest part of what is allowed.

    A row may differ by four units in the last place of its largest number, which leaves room for
    weights and scores rounded to the dtype, and by what sums in float32 of values as large as these
    lose. More than 1 in "of_allowed", or NaN, is a wrong result.
    """
    error = np.abs(out.astype(np.float64) - reference).max(axis=-1)
    largest = float(np.abs(arrays.value.astype(np.float32)).max())
    allowed = 4 * UNIT[dtype] * np.abs(reference).max(axis=-1) + 8 * UNIT["float32"] * largest
    return {"error": float(error.max()), "of_allowed": float((error / allowed).max())}
