"""The arrays of a case, of NumPy or of another library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Library:
    """A library of arrays, as far as the benchmark needs it: what NumPy and torch call alike."""

    xp: Any  # functions by NumPy's names
    normal: Callable[[int, str], Callable[[Sequence[int]], Any]]  # seed, dtype -> shape -> random
    wide: Callable[[Any], Any]  # the same numbers in float64


def normal(seed: int, dtype: str) -> Callable[[Sequence[int]], Array]:
    rng, kind = np.random.default_rng(seed), numpy_dtype(dtype)
    return lambda shape: rng.standard_normal(shape, dtype=np.float32).astype(kind)


NUMPY = Library(np, normal, lambda x: x.astype(np.float64))


def inputs(case: Case, sets: int = 1, library: Library = NUMPY) -> list[Inputs]:
    """Random arrays of a case: one query, and `sets` copies of keys and values in memory."""
    draw = library.normal(0, case.dtype)
    query = draw((case.batch, case.heads, case.rows, case.dim))
    key, value = (draw((case.batch, case.kv_heads, case.keys, case.dim)) for _ in range(2))
    copy = library.xp.empty_like
    copies = [Inputs(query, copy(key), copy(value)) for _ in range(sets - 1)]
    for one in copies:
        one.key[...], one.value[...] = key, value
    return [Inputs(query, key, value), *copies]


def upstream(case: Case, library: Library = NUMPY) -> Any:
    """A gradient by the output, random like the inputs."""
    return library.normal(1, case.dtype)((case.batch, case.heads, case.rows, case.dim))
