"""JAX arrays in the CPU's memory, each on one device; what is traced, or on a GPU, is fanano.jax's.

They never change, so none is ever written. A result is a new array on the device of the one it is
like, in memory that nobody else knows: what was computed is handed over, not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.dlpack
import jax.dtypes

from .. import _core
from . import Watched
from .numpy import dtype_name as dtype_name  # its dtypes are NumPy's

library = "jax"
written = None
device_option = None
stream = None
empty = _core.Buffer


def accepts(argument: str, kind: type) -> bool:
    return issubclass(kind, (jax.Array, jax.core.Tracer))


def prepare(names: Sequence[str], arrays: Sequence[Any]) -> Sequence[Any]:
    for name, array in zip(names, arrays, strict=True):
        if isinstance(array, jax.core.Tracer):
            raise Watched(
                f"{name} is traced: this call is inside of jax.jit, grad, vmap or the like, and of "
                "fanano only attention can be, of arrays that are all JAX's: call it outside of "
                "them, or by jax.pure_callback inside of jax.jit",
                library,
                operators,
            )
        if platform_of(array) not in ("cpu", None):
            raise Watched(
                f"{name} is on {array.sharding}, where fanano has attention alone: "
                'jax.device_put(x, jax.devices("cpu")[0]) copies it to the CPU',
                library,
                operators,
            )
    return arrays


def platform_of(array: Any) -> str | None:
    """Where its memory is, such as ``"cpu"``; None: JAX does not say."""
    platform = getattr(array, "platform", None)  # much quicker than asking for its devices
    return str(platform()) if callable(platform) else None


def operators(*args: Any, **options: Any) -> Any:
    """``fanano.attention`` where JAX traces."""
    from ..jax import calls

    return calls.attention(*args, **options)


def check_out(out: Any) -> None:
    raise TypeError("out must not be a JAX array, these never change; leave out away")


def finisher(like: Any) -> Callable[[Any], Any]:
    check_float64(like)
    return partial(jax.dlpack.from_dlpack, device=like.sharding)


def check_float64(like: Any) -> None:
    """Raises where a result could not be of the dtype of this array."""
    if like.dtype == "float64" and jax.dtypes.canonicalize_dtype("float64") != "float64":
        raise ValueError(
            "JAX makes no float64 arrays while x64 is off, and the result would be rounded to "
            'float32: jax.config.update("jax_enable_x64", True), or pass float32'
        )


def diagnose(cuda: bool, /, **arrays: Any) -> None:
    for argument, array in arrays.items():
        if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
            continue
        if array.is_deleted():
            raise ValueError(
                f"{argument} has been deleted: it was donated to a compiled function, or delete() "
                "was called; pass an array that is still there"
            )
        devices = array.sharding.device_set
        if len(devices) > 1:
            raise ValueError(
                f"{argument} is spread over {len(devices)} devices ({array.sharding}); "
                'jax.device_put(x, jax.devices("cpu")[0]) gathers it on one'
            )
        device: Any = next(iter(devices))
        if device.platform != "cpu":
            raise ValueError(
                f"{argument} must be in the CPU's memory, it is on device {device}; "
                'jax.device_put(x, jax.devices("cpu")[0]) copies it there'
            )
        if not hasattr(array, "__dlpack__"):
            raise TypeError(f"{argument} must be an array of numbers, its dtype is {array.dtype}")


def fresh_seed(query: Any) -> int:
    raise ValueError(
        "dropout_p is not 0, so seed must be given, for JAX has no random state of its own: an "
        "integer, or jax.random.bits(key, dtype=jax.numpy.uint32)"
    )


def max_threads() -> int:
    return 0
