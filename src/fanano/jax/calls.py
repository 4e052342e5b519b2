"""From ``fanano.attention``'s arguments to the operators. Private."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _core
from ..adapters import jax as adapter
from . import differentiation
from .operators import Arrays, Options, all_differ, axes_of, register

__all__ = ["attention", "rounded"]


def attention(
    query: Any,
    key: Any,
    value: Any,
    *,
    attn_mask: Any = None,
    is_causal: bool = False,
    window_size: Any = None,
    q_offset: Any = None,
    scale: Any = None,
    softcap: Any = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    dropout_p: Any = 0.0,
    seed: Any = None,
    dropout_offset: Any = (0, 0, 0, 0),
    q_lengths: Any = None,
    kv_lengths: Any = None,
    return_lse: bool = False,
    layout: str = "bhsd",
    algorithm: str = "flash",
    out_dtype: Any = None,
    out: Any = None,
) -> Any:
    """``fanano.attention`` on JAX arrays, traced ones too."""
    _refuse(out, algorithm, return_lse)
    register()
    arrays = {"query": _array("query", query), "key": _array("key", key)}
    arrays["value"] = _array("value", value)
    if attn_mask is not None:
        arrays["attn_mask"] = _array("attn_mask", rounded(attn_mask))
    adapter.check_float64(arrays["query"])
    numbers = {"alibi_slopes": alibi_slopes, "sinks": sinks}
    numbers |= {"q_lengths": q_lengths, "kv_lengths": kv_lengths, "q_offsets": q_offset}
    static = ("scale", scale, ", or scale query"), ("softcap", softcap, "")
    for name, x, instead in (*static, ("dropout_p", dropout_p, "")):
        if isinstance(x, jax.core.Tracer):
            raise TypeError(
                f"{name} must be a number while JAX traces, and is itself traced: make it a static "
                f"argument of the compiled function{instead}"
            )
    if out_dtype is not None and not isinstance(out_dtype, str):
        out_dtype = adapter.dtype_name(out_dtype)
    if seed is None and dropout_p != 0:
        seed = adapter.fresh_seed(arrays["query"])
    # Every check is the core's, on arrays of the same shapes and dtypes that hold nothing.
    _core.explain(
        _standin(arrays["query"]),
        _standin(arrays["key"]),
        _standin(arrays["value"]),
        _standin(arrays.get("attn_mask")),
        is_causal,
        window_size,
        _values("q_offset", q_offset),
        scale,
        softcap,
        _values("alibi_slopes", alibi_slopes),
        _values("sinks", sinks),
        dropout_p,
        _seed(seed),
        _place(dropout_offset),
        _values("q_lengths", q_lengths),
        _values("kv_lengths", kv_lengths),
        layout,
        algorithm,
        out_dtype,
        False,  # of the backward pass
        False,  # with the mask's gradient
        adapter.max_threads(),
    )
    left, right = window_size or (None, None)
    query = arrays["query"]
    fixed, numbers["q_offsets"] = _offset(q_offset)
    options = Options(
        layout,
        bool(is_causal),
        -1 if left is None else max(operator.index(left), -1),
        -1 if right is None else max(operator.index(right), -1),
        fixed,
        None if scale is None else float(scale),
        float(softcap) if softcap else None,
        out_dtype or query.dtype.name,
        float(dropout_p),
    )
    if options.dropout_p:
        arrays["dropout"] = _words(seed, dropout_offset)
    for name, x in numbers.items():
        if x is not None:
            x = _small(x, float if name in ("alibi_slopes", "sinks") else int)
            arrays[name] = rounded(x) if name == "sinks" else x
    found, lse = _compiled(options, query.ndim, arrays)
    return (found, lse) if return_lse else found


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(options: Options, rank: int, given: Arrays) -> tuple[Any, Any]:
    """With what the operators expect in place of what callers may give."""
    layout, arrays = options.layout, {}
    for name in "query", "key", "value":
        x = given[name]
        if rank == 2:
            x = x[:, None] if layout == "bshd" else x[None]
        arrays[name] = x if rank == 4 else x[None]
    sizes: dict[str, int] = {}
    for name in "key", "query":
        sizes |= zip(axes_of(name, 4, layout), arrays[name].shape, strict=True)
    if "attn_mask" in given:
        mask = given["attn_mask"]
        arrays["attn_mask"] = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    for name in "alibi_slopes", "sinks":
        if name in given:
            x = given[name].astype(jnp.promote_types(given[name].dtype, "float32"))
            arrays[name] = jnp.broadcast_to(x, (sizes["h"],)) if x.ndim == 0 else x
    for name, most in ("q_lengths", sizes["q"]), ("kv_lengths", sizes["k"]), ("q_offsets", None):
        if name not in given:
            continue
        x = jnp.broadcast_to(given[name], (sizes["b"],))
        # Nobody has seen them if they are traced: none may reach beyond the array.
        arrays[name] = x if most is None else jnp.clip(x, 0, min(most, jnp.iinfo(x.dtype).max))
    if "dropout" in given:
        arrays["dropout"] = given["dropout"]
    out, lse = differentiation.attention(options, all_differ(arrays))
    if rank < 4:
        out, lse = out[0], lse[0]
    if rank == 2:
        out, lse = out[:, 0] if layout == "bshd" else out[0], lse[0]
    return out, lse


def _refuse(out: Any, algorithm: Any, return_lse: Any) -> None:
    if out is not None:
        adapter.check_out(out)
    if isinstance(algorithm, str) and algorithm in ("naive", "safe", "online"):
        raise NotImplementedError(
            f"algorithm={algorithm!r} has no derivative and cannot be traced; in fanano.jax, and "
            'inside of jit, grad, vmap and the like, only "flash" can be used'
        )
    if not isinstance(return_lse, bool | np.bool_):
        raise TypeError(f"return_lse must be True or False, got {type(return_lse).__name__}")


def _array(argument: str, x: Any) -> Any:
    if not isinstance(x, jax.Array):
        try:
            x = jnp.asarray(x)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{argument} must be an array that JAX takes, got {type(x).__name__}: {error}"
            ) from None
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        raise TypeError(f"{argument} must be an array of numbers, its dtype is {x.dtype}")
    if not isinstance(x, jax.core.Tracer) and x.is_deleted():
        adapter.diagnose(False, **{argument: x})
    return x


def rounded(x: Any) -> Any:
    """Additive numbers in float32 while JAX has no float64; as in the core, finite ones stay so."""
    wide = not isinstance(x, jax.Array) and getattr(x, "dtype", None) == "float64"
    if not wide or jax.dtypes.canonicalize_dtype("float64") == "float64":
        return x
    most = float(np.finfo("float32").max)
    return np.where(np.isfinite(x), np.clip(x, -most, most), x).astype("float32")


def _standin(x: Any) -> Any:
    """An array of this shape and dtype, in the memory of one number."""
    return None if x is None else np.broadcast_to(np.zeros((), x.dtype), x.shape)


def _values(argument: str, x: Any) -> Any:
    """Numbers that the core is to look at; of traced ones there is only the shape."""
    if not isinstance(x, jax.Array):
        return x
    x = _array(argument, x)
    return _standin(x) if isinstance(x, jax.core.Tracer) else np.asarray(x)


def _seed(seed: Any) -> Any:
    """For the core to look at; it takes any for one that is traced, or must be there."""
    if not isinstance(seed, jax.Array):
        return seed
    if seed.ndim or not jnp.issubdtype(seed.dtype, jnp.integer):
        raise TypeError(
            f"seed must be one integer, got an array of {seed.dtype} of shape {seed.shape}; a key "
            "gives one by jax.random.bits(key)"
        )
    return 0 if isinstance(seed, jax.core.Tracer) else int(seed)


def _place(dropout_offset: Any) -> Any:
    """(batch, head, row, column) for the core to look at; for traced integers it sees 0."""
    if not isinstance(dropout_offset, tuple | list):
        return dropout_offset  # it says what is wrong

    def unseen(x: Any) -> bool:
        traced = isinstance(x, jax.core.Tracer)
        return traced and x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer)

    return tuple(0 if unseen(x) else x for x in dropout_offset)


def _words(seed: Any, dropout_offset: Any) -> Any:
    """The operand "dropout"; a seed of fewer than 64 bits as the number that it is."""
    low: Any = seed
    high: Any = 0
    if not isinstance(seed, jax.core.Tracer):
        high, low = divmod(operator.index(seed) % 2**64, 2**32)
    elif seed.dtype.itemsize == 8:
        high = seed >> 32
    elif jnp.issubdtype(seed.dtype, jnp.signedinteger):
        high = jnp.where(seed < 0, -1, 0)
    words = [low, high, *dropout_offset]
    if not any(isinstance(x, jax.core.Tracer) for x in words):
        return np.array([operator.index(x) for x in words], np.uint32)

    def word(x: Any) -> Any:
        traced = isinstance(x, jax.core.Tracer)
        return x.astype(jnp.uint32) if traced else np.uint32(operator.index(x))

    return jnp.stack([word(x) for x in words])


def _offset(q_offset: Any) -> tuple[int | None, Any]:
    """The upper left, and what 32 bits do not hold, is compiled in; others come as arrays, so that
    a loop over them compiles nothing anew."""
    if q_offset is None or isinstance(q_offset, jax.Array | np.ndarray | list | tuple):
        return None, q_offset
    offset = operator.index(q_offset)
    fixed = offset == 0 or not -(2**31) <= offset < 2**31
    return (offset, None) if fixed else (None, offset)


def _small(x: Any, kind: type) -> Any:
    """Numbers that the core has seen, as jit takes them: in 32 bits while x64 is off."""
    if isinstance(x, jax.Array):
        return x
    x = np.asarray(x, None if hasattr(x, "dtype") else kind)
    if x.dtype == "int64" and jax.dtypes.canonicalize_dtype("int64") != "int64":
        if (x != x.astype("int32")).any():
            raise ValueError(
                f"q_offset is {x.tolist()}, and JAX has no integers of more than 32 bits while x64 "
                'is off: jax.config.update("jax_enable_x64", True), or pass one integer for all'
            )
        x = x.astype("int32")
    return x
