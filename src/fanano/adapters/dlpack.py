"""Arrays of any other library that has ``__dlpack__``.

Results are memory of ours, which ``from_dlpack`` of the array's own namespace takes over, so that
they are of the caller's own type. On a CUDA device attention runs on the legacy default stream,
which the library lets wait for its own; and lets its own wait for that before it uses a result.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from .. import _core

library = ""  # whatever the type's own module says
prepare = None
written = None
diagnose = None
device_option = None
stream = None
empty = _core.Buffer


def accepts(argument: str, kind: type) -> bool:
    return hasattr(kind, "__dlpack__")


def check_out(out: Any) -> None:
    """Nothing: the core asks the library whether its memory may be written."""


def finisher(like: Any) -> Callable[[Any], Any]:
    namespace = getattr(like, "__array_namespace__", None)
    if namespace is None:
        raise TypeError(
            f"arrays of type {type(like).__name__} can be read, but no result can be made of their "
            "type, which has no __array_namespace__: pass numpy.from_dlpack(x) for each array"
        )
    convert: Callable[[Any], Any] = namespace().from_dlpack
    return convert


def dtype_name(dtype: Any) -> str:
    raise TypeError(f'out_dtype must be the name of a dtype, such as "float32"; got {dtype!r}')


def fresh_seed(query: Any) -> int:
    return secrets.randbits(64)


def max_threads() -> int:
    return 0
