"""Arrays of any other library that has ``__dlpack__``, on the CPU.

Results are handed back through ``from_dlpack`` of the array's own namespace, so that they are of
the caller's own type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _core

library = ""  # whatever the type's own module says
prepare = None
written = None
diagnose = None

# Their arrays are constants, whatever their descriptors say.
_IMMUTABLE = {"jax", "jaxlib"}


def accepts(argument: str, kind: type) -> bool:
    return hasattr(kind, "__dlpack__")


def check_out(out: Any) -> None:
    if type(out).__module__.partition(".")[0] in _IMMUTABLE:
        raise TypeError("out must not be a JAX array, these never change; leave out away")


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    return _core.new_buffer(shape, dtype)


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


def max_threads() -> int:
    return 0
