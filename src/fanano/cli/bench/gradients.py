"""The judge of gradients: attention's derivative in float64, and what may differ from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .arrays import Array, Inputs, numpy_dtype
from .cases import UNIT, Case

NAMES = "dq", "dk", "dv"


class Exact(NamedTuple):
    """The gradients; and, for each of their elements, the root of the sum of the squares of the
    terms that it is summed from: what independent roundings of these terms grow with; and how many
    terms there are."""

    gradients: list[Array]
    sizes: list[Array]
    terms: tuple[int, int, int]


def upstream(case: Case) -> Array:
    """A gradient by the output, random like the inputs."""
    shape = (case.batch, case.heads, case.rows, case.dim)
    numbers = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return numbers.astype(numpy_dtype(case.dtype))


def exact_gradients(arrays: Inputs, dout: Array, *, is_causal: bool) -> Exact:
    """dq, dk, dv in float64, one head at a time; key heads are summed over their query heads."""
    query, key, value = arrays
    batch, heads, rows, dim = query.shape
    keys, group = key.shape[2], heads // key.shape[1]
    visible = np.tri(rows, keys, keys - rows if is_causal else keys, dtype=bool)
    scale = 1 / math.sqrt(dim)
    zeros, squares_of = ([np.zeros(x.shape) for x in arrays] for _ in range(2))
    found = Exact(zeros, squares_of, (keys, rows * group, rows * group))
    for b, h in np.ndindex(batch, heads):
        of_q, of_kv = (b, h), (b, h // group)
        q, k, v, do = (
            x.astype(np.float64) for x in (query[of_q], key[of_kv], value[of_kv], dout[of_q])
        )
        scores = np.where(visible, scale * (q @ k.T), -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
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
    return found._replace(sizes=[np.sqrt(x) for x in found.sizes])


def judge_gradients(results: Sequence[Array], exact: Exact, dtype: str) -> dict[str, float]:
    """The largest difference of all elements of dq, dk and dv, and of all their rows the largest
    part of what is allowed.

    A row may differ by six units in the last place of its largest number, which is rounded, and of
    the largest root of squares, for probabilities, their gradients, the output and, in torch's
    flash kernel, sums of some rows are rounded to the dtype; and by what float32 loses where n
    terms are added one after the other: each step rounds what has been added so far, the root of n
    times. More than 1 in "of_allowed", or NaN, is a wrong result.
    """
    verdicts = []
    for result, reference, size, terms in zip(results, *exact, strict=True):
        error = np.abs(result.astype(np.float64) - reference).max(axis=-1)
        largest = np.maximum(np.abs(reference), size).max(axis=-1)
        allowed = (6 * UNIT[dtype] + (8 + math.sqrt(terms)) * UNIT["float32"]) * largest
        verdicts.append((float((error / allowed).max()), float(error.max())))
    worst, _ = max(verdicts, key=lambda verdict: (math.isnan(verdict[0]), verdict[0]))
    return {"error": max(error for _, error in verdicts), "of_allowed": worst}
