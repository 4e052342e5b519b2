"""The judge of results: attention in float64, and what may differ from it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .arrays import NUMPY, Array, Inputs, Library
from .cases import UNIT


def exact(
    arrays: Inputs,
    library: Library = NUMPY,
    *,
    is_causal: bool = False,
    window_size: tuple[int, int] | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    attn_mask: Any = None,
) -> Array:
    """Attention in float64 with fanano's options, one head at a time: its scores fit anywhere."""
    xp, (query, key, value) = library.xp, arrays
    batch, heads, rows, dim = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    position = xp.arange(rows)[:, None] + keys - rows
    distance = position - xp.arange(keys)
    visible = xp.ones((rows, keys), dtype=xp.bool)
    if is_causal:
        visible &= distance >= 0
    if window_size is not None:
        left, right = window_size
        visible &= (distance <= left) & (distance >= -right)
    mask = None if attn_mask is None else xp.broadcast_to(attn_mask, (batch, heads, rows, keys))
    out: Array = xp.empty(tuple(query.shape), dtype=xp.float64)
    for b, h in np.ndindex(batch, heads):
        heads_of = query[b, h], key[b, h // group], value[b, h // group]
        q, k, v = (library.wide(x) for x in heads_of)
        scores = q @ k.T / math.sqrt(dim)
        if softcap is not None:
            scores = softcap * xp.tanh(scores / softcap)
        if alibi_slopes is not None:
            scores -= float(alibi_slopes[h]) * abs(distance)
        seen = visible
        if mask is not None and mask.dtype == xp.bool:
            seen = visible & mask[b, h]
        elif mask is not None:
            scores += mask[b, h]
        scores = xp.where(seen, scores, -math.inf)
        sink = -math.inf if sinks is None else float(sinks[h])
        top = xp.clip(xp.amax(scores, axis=-1, keepdims=True), sink, None)
        weights = xp.exp(scores - top)
        out[b, h] = weights @ v / (weights.sum(axis=-1, keepdims=True) + xp.exp(sink - top))
    return out


def judge(
    out: Array, reference: Array, arrays: Inputs, dtype: str, library: Library = NUMPY
) -> dict[str, float]:
    """The largest difference of all elements, and of all rows the largest part of what is allowed.

    A row may differ by four units in the last place of its largest number, which leaves room for
    weights and scores rounded to the dtype, and by what sums in float32 of values as large as these
    lose; in float64, which the reference is made in, by 1e-12 of these. More than 1 in
    "of_allowed", or NaN, is a wrong result.
    """
    xp = library.xp
    error = xp.amax(xp.abs(library.wide(out) - reference), axis=-1)
    largest = float(xp.abs(library.wide(arrays.value)).max())
    of_row = xp.amax(xp.abs(reference), axis=-1)
    sums = 1e-12 if dtype == "float64" else 8 * UNIT["float32"]
    allowed = 4 * UNIT[dtype] * of_row + sums * largest
    return {"error": float(error.max()), "of_allowed": float((error / allowed).max())}
