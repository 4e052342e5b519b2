"""NumPy arrays. bfloat16 is ``ml_dtypes.bfloat16``.

``numpy.memmap`` is read like any array, and the result is a plain ``numpy.ndarray``. Other
subclasses carry a meaning that their memory does not (a mask, a unit, ``*`` as a matrix product),
so they are refused.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

import numpy as np

library = "numpy"
prepare = None
written = None
diagnose = None
device_option = None
stream = None
finisher = None

_dtypes: dict[str, Any] = {name: np.dtype(name) for name in ("float64", "float32", "float16")}


def accepts(argument: str, kind: type) -> bool:
    if kind is np.ndarray or kind is np.memmap:
        return True
    if not issubclass(kind, np.ndarray):
        return False
    masked = sys.modules.get("numpy.ma")
    if masked is not None and issubclass(kind, masked.MaskedArray):
        raise TypeError(
            f"{argument} is a numpy.ma.MaskedArray, whose mask would be lost: pass "
            "numpy.ma.getdata(x), and kv_lengths for what is padding"
        )
    raise TypeError(
        f"{argument} is a {kind.__module__}.{kind.__qualname__}; only plain NumPy arrays and "
        "numpy.memmap are supported: numpy.asarray(x), if its numbers say all there is to say"
    )


def check_out(out: Any) -> None:
    """Nothing: NumPy's own flag says which arrays are read-only."""


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    return np.empty(shape, dtype_named(dtype))


def dtype_named(dtype: str) -> Any:
    return _dtypes.get(dtype) or _bfloat16()


def dtype_name(dtype: Any) -> str:
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        raise TypeError(f"out_dtype must be a dtype or the name of one, got {dtype!r}") from None


def fresh_seed(query: Any) -> int:
    return secrets.randbits(64)


def max_threads() -> int:
    return 0


def _bfloat16() -> Any:
    import ml_dtypes  # imported already by whoever made an input of this dtype

    _dtypes["bfloat16"] = dtype = np.dtype(ml_dtypes.bfloat16)
    return dtype
