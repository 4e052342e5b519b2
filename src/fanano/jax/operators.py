"""Attention and its backward as XLA knows them: two foreign functions. Private.

Arrays go by name, and are as ``calls.py`` makes them: query and its like have four axes, so has a
mask (those of one element are the same for all), slopes are (Hq,) or (B, Hq), sinks (Hq,), lengths
and offsets (B,). Of dropout six words of 32 bits: the seed, lower half first, and the place of the
first pair, (batch, head, row, column). What is not given has no name.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import _core

__all__ = ["Arrays", "Options", "all_differ", "axes_of", "call", "register", "results_of"]

Arrays = dict[str, Any]

# The axes of each array: batch, query heads, key heads, queries, keys, dim, value dim.
_AXES = {
    **dict.fromkeys(("query", "dq"), "bhqd"),
    **dict.fromkeys(("key", "dk"), "bgkd"),
    **dict.fromkeys(("value", "dv"), "bgke"),
    **dict.fromkeys(("out", "dout"), "bhqe"),
    **dict.fromkeys(("lse", "dlse"), "bhq"),
    **dict.fromkeys(("attn_mask", "dbias"), "bhqk"),
    "alibi_slopes": "bh",
    **dict.fromkeys(("sinks", "dsinks"), "h"),
    **dict.fromkeys(("q_lengths", "kv_lengths", "q_offsets"), "b"),
    "dropout": "w",
}
_BY_LAYOUT = frozenset(("query", "key", "value", "out", "dout", "dq", "dk", "dv"))


class Options(NamedTuple):
    """What is no array: it is compiled in."""

    layout: str
    is_causal: bool = False
    left: int = -1
    right: int = -1
    q_offset: int | None = None
    scale: float | None = None
    softcap: float | None = None
    out_dtype: str | None = None
    dropout_p: float = 0.0
    grad_mask: bool = False  # of the backward alone

    def attributes(self) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "layout": self.layout,
            "is_causal": np.int64(self.is_causal),
            "left": np.int64(self.left),
            "right": np.int64(self.right),
        }
        if self.q_offset is not None:
            numbers["q_offset"] = np.int64(self.q_offset)
        if self.scale is not None:
            numbers["scale"] = np.float64(self.scale)
        if self.softcap is not None:
            numbers["softcap"] = np.float64(self.softcap)
        if self.dropout_p:
            numbers["dropout_p"] = np.float64(self.dropout_p)
        return numbers


def axes_of(name: str, ndim: int, layout: str) -> str:
    """The axes of an array, a letter for each."""
    axes = _AXES[name][-ndim:] if ndim else ""
    if layout == "bshd" and name in _BY_LAYOUT:
        axes = axes[0] + axes[2] + axes[1] + axes[3]
    return axes


def call(operator: str, options: Options, operands: Arrays) -> Arrays:
    """``attention`` gives out and lse; ``attention_backward`` dq, dk, dv, dbias, dsinks."""
    register()
    results = results_of(operator, options, operands)
    places = {name: np.int64(i) for i, name in enumerate(operands)}
    places |= {name: np.int64(i) for i, name in enumerate(results)}
    function = jax.ffi.ffi_call(f"fanano_{operator}", list(results.values()))
    found = function(*operands.values(), **places, **options.attributes())
    return _varying(dict(zip(results, found, strict=True)), _differs(operands["query"]))


def results_of(operator: str, options: Options, operands: Arrays) -> Arrays:
    """Shapes and dtypes of what ``call`` gives."""
    query, value = operands["query"], operands["value"]
    heads = query.shape[axes_of("query", 4, options.layout).index("h")]
    wide = "float64" if query.dtype == "float64" else "float32"

    def like(array: Any) -> Any:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    if operator == "attention":
        rows = query.shape[axes_of("query", 4, options.layout).index("q")]
        out = jax.ShapeDtypeStruct((*query.shape[:-1], value.shape[-1]), options.out_dtype)
        return {"out": out, "lse": jax.ShapeDtypeStruct((query.shape[0], heads, rows), wide)}
    found = {"dq": like(query), "dk": like(operands["key"]), "dv": like(value)}
    if options.grad_mask:
        found["dbias"] = like(operands["attn_mask"])
    if "sinks" in operands:
        found["dsinks"] = jax.ShapeDtypeStruct((heads,), wide)
    return found


def all_differ(arrays: Arrays) -> Arrays:
    """Inside of shard_map, arrays that differ from device to device along the same axes of the
    mesh: JAX then sums the gradients by what devices share."""
    return _varying(arrays, frozenset[str]().union(*map(_differs, arrays.values())))


def _differs(x: Any) -> frozenset[str]:
    kind: Any = jax.typeof(x) if hasattr(jax, "typeof") else None  # before, nobody kept account
    kind = getattr(kind, "manual_axis_type", kind)  # since JAX 0.10
    return frozenset(getattr(kind, "varying", ()) or getattr(kind, "vma", ()))


def _varying(arrays: Arrays, axes: frozenset[str]) -> Arrays:
    if not axes:
        return arrays
    cast: Any = getattr(jax.lax, "pcast", None)
    cast = partial(cast, to="varying") if cast else getattr(jax.lax, "pvary")  # noqa: B009
    return {
        name: cast(x, tuple(sorted(missing))) if (missing := axes - _differs(x)) else x
        for name, x in arrays.items()
    }


@cache
def register() -> None:
    """Makes the handlers known to XLA, once.

    Never those of a newer interface than jaxlib's: it would take note of them, refuse them when its
    CPU backend starts, and have none from then on.
    """
    built = _core.xla_version()
    if built == (0, 0):
        raise NotImplementedError(
            "this build of fanano has no handlers for compiled JAX: it was built where XLA's "
            "headers were not found. Build it where a jaxlib is (-C fanano.jax=require), or "
            "call fanano.attention eagerly, outside of jit, grad and vmap"
        )
    if not hasattr(jax, "ffi"):
        raise NotImplementedError(
            f"fanano.jax needs JAX 0.5 or newer, which has jax.ffi; this is {jax.__version__}"
        )
    # All that have jax.ffi speak 0.1.
    if built > (0, 1) and built > (has := _version_of_jaxlib()):
        raise NotImplementedError(
            f"this build of fanano speaks version {built[0]}.{built[1]} of XLA's foreign function "
            f"interface, and the jaxlib here {has[0]}.{has[1]}: build fanano with this jaxlib, or "
            "install a newer one"
        )
    for target, platform, handler in _core.xla_handlers():
        jax.ffi.register_ffi_target(target, handler, platform=platform)


def _version_of_jaxlib() -> tuple[int, int]:
    """As its headers say; (0, 1), the oldest, where they do not."""
    numbers = {"XLA_FFI_API_MAJOR": 0, "XLA_FFI_API_MINOR": 1}
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    for line in header.read_text().splitlines() if header.exists() else ():
        match line.split():
            case ["#define", name, number] if name in numbers:
                numbers[name] = int(number)
    return numbers["XLA_FFI_API_MAJOR"], numbers["XLA_FFI_API_MINOR"]
