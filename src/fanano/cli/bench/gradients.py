"""The judge of gradients: attention's derivative in float64, and what may differ from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .arrays import NUMPY, Array, Inputs, Library
from .cases import UNIT

NAMES = "dq", "dk", "dv"


class Exact(NamedTuple):
    """The gradients; and, for each of their elements, the root of the sum of the squares of the
    terms that it is summed from: what independent roundings of these terms grow with; and how many
    terms there are."""

    gradients: list[Array]
    sizes: list[Array]
    terms: tuple[int, int, int]


def exact_gradients(
    arrays: Inputs, dout: Array, library: Library = NUMPY, *, is_causal: bool
) -> Exact:
    """dq, dk, dv in float64, one head at a time; key heads are summed over their query heads."""
    xp, (query, key, value) = library.xp, arrays
    batch, heads, rows, dim = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    everything = xp.ones((rows, keys), dtype=xp.bool)
    visible = xp.tril(everything, keys - rows) if is_causal else everything
    scale = 1 / math.sqrt(dim)
    zeros, squares_of = (
        [xp.zeros(tuple(x.shape), dtype=xp.float64) for x in arrays] for _ in range(2)
    )
    found = Exact(zeros, squares_of, (keys, rows * group, rows * group))
    for b, h in np.ndindex(batch, heads):
        of_q, of_kv = (b, h), (b, h // group)
        heads_of = query[of_q], key[of_kv], value[of_kv], dout[of_q]
        q, k, v, do = (library.wide(x) for x in heads_of)
        scores = xp.where(visible, scale * (q @ k.T), -math.inf)
        p = xp.exp(scores - xp.amax(scores, axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        dp, terms = do @ v.T, do * (p @ v)
        ds = scale * p * (dp - terms.sum(axis=-1, keepdims=True))
        # dP and what is taken off it are rounded before they cancel.
        squares = (scale * p) ** 2 * (dp**2 + (terms**2).sum(axis=-1, keepdims=True))
        for (dq, dk, dv), s, weights, power in (
            (found.gradients, ds, p, 1),
            (found.sizes, squares, p**2, 2),
        ):
            dq[of_q] += s @ k**power
            dk[of_kv] += s.T @ q**power
            dv[of_kv] += weights.T @ do**power
    return found._replace(sizes=[xp.sqrt(x) for x in found.sizes])


def judge_gradients(
    results: Sequence[Array], exact: Exact, dtype: str, library: Library = NUMPY
) -> dict[str, float]:
    """The largest difference of all elements of dq, dk and dv, and of all their rows the largest
    part of what is allowed.

    A row may differ by six units in the last place of its largest number, which is rounded, and of
    the largest root of squares, for probabilities, their gradients, the output and, in torch's
    flash kernel, sums of some rows are rounded to the dtype; and by what float32 loses where n
    terms are added one after the other: each step rounds what has been added so far, the root of n
    times. More than 1 in "of_allowed", or NaN, is a wrong result.
    """
    xp, verdicts = library.xp, []
    for result, reference, size, terms in zip(results, *exact, strict=True):
        error = xp.amax(xp.abs(library.wide(result) - reference), axis=-1)
        largest = xp.amax(xp.maximum(xp.abs(reference), size), axis=-1)
        allowed = (6 * UNIT[dtype] + (8 + math.sqrt(terms)) * UNIT["float32"]) * largest
        verdicts.append((float((error / allowed).max()), float(error.max())))
    worst, _ = max(verdicts, key=lambda verdict: (math.isnan(verdict[0]), verdict[0]))
    return {"error": max(error for _, error in verdicts), "of_allowed": worst}
