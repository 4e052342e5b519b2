"""The arrays of a case."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .cases import Case

Array = np.ndarray[Any, Any]


class Inputs(NamedTuple):
    query: Array
    key: Array
    value: Array


def numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def inputs(case: Case, sets: int = 1) -> list[Inputs]:
    """Random arrays of a case: one query, and `sets` copies of keys and values in memory."""
    rng = np.random.default_rng(0)
    dtype = numpy_dtype(case.dtype)

    def normal(heads: int, rows: int) -> Array:
        shape = (case.batch, heads, rows, case.dim)
        return rng.standard_normal(shape, dtype=np.float32).astype(dtype)

    query = normal(case.heads, case.rows)
    key, value = normal(case.kv_heads, case.keys), normal(case.kv_heads, case.keys)
    copies = [Inputs(query, key.copy(), value.copy()) for _ in range(sets - 1)]
    return [Inputs(query, key, value), *copies]
