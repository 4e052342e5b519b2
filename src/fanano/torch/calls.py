"""From ``fanano.attention``'s arguments to the operators. Private."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import operator
from typing import Any

import torch

from ..adapters import torch as adapter
from ..attention import attention as facade
from . import operators
from .autograd import Attention, EagerAttention, differentiable, refuse_derivative

__all__ = ["attention", "dispatch"]


def dispatch(query: Any, key: Any, value: Any, **options: Any) -> Any:
    """Under autocast in its dtype; past torch's dispatcher where it has nothing to do."""
    device = "cuda" if _on_cuda(query) else "cpu"
    if torch.is_autocast_enabled(device):
        query, key, value = autocast(device, query, key, value)
    if plain(query, key, value) and not differentiable(query, key, value):
        return facade(query, key, value, **options)  # which comes back for what it cannot know
    return attention(query, key, value, **options)


def autocast(device: str, *tensors: Any) -> tuple[Any, ...]:
    """What torch's own attention would compute with: float64 stays as it is."""
    dtype = torch.get_autocast_dtype(device)
    low = torch.float32, torch.bfloat16, torch.float16
    return tuple(
        x.to(dtype) if isinstance(x, torch.Tensor) and x.dtype in low else x for x in tensors
    )


def plain(*tensors: Any) -> bool:
    """Whether ``fanano.attention`` may see them: it refuses what is more than its memory. torch's
    profilers see operators alone."""
    if torch.compiler.is_compiling() or adapter.profiled():
        return False
    return all(type(x) in adapter.PLAIN and not x.is_meta for x in tensors)


def _on_cuda(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_cuda


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
    """``fanano.attention`` on torch tensors that autograd, a transform or a trace watches."""
    _refuse_out(out, algorithm)
    for argument, x in {"query": query, "key": key, "value": value}.items():
        _check(argument, x)
        _check_memory(argument, x, query)
    tensors = {
        "attn_mask": attn_mask, "sinks": sinks, "alibi_slopes": alibi_slopes, "seed": seed,
        "q_offset": q_offset, "q_lengths": q_lengths, "kv_lengths": kv_lengths,
    }  # fmt: skip
    for argument, x in tensors.items():
        if isinstance(x, torch.Tensor):
            _check(argument, x)
            if not query.is_meta:
                _check_memory(argument, x, query)
    left, right = _window(window_size)
    q_offset = _integer(q_offset)
    offsets = None if q_offset is None or _is_integer(q_offset) else q_offset
    if out_dtype is not None and not isinstance(out_dtype, str):
        out_dtype = adapter.dtype_name(out_dtype)
    options = (
        _tensor("attn_mask", attn_mask, query),
        _tensor("sinks", sinks, query, torch.float64),
        _constant("alibi_slopes", _tensor("alibi_slopes", alibi_slopes, query, torch.float64)),
        _tensor("q_lengths", q_lengths, query),
        _tensor("kv_lengths", kv_lengths, query),
        _tensor("q_offset", offsets, query),
        _seed(seed, dropout_p, query),
        _flag(is_causal),
        left,
        right,
        q_offset if offsets is None else None,
        _number("scale", scale),
        _number("softcap", softcap),
        _number("dropout_p", dropout_p),
        *_offset(dropout_offset),
        layout,
    )
    arguments = query, key, value, out_dtype, *options
    if adapter.transformed():
        if torch.compiler.is_compiling():  # torch 2.13 would trace forward alone, or fail inside
            raise NotImplementedError(
                "fanano's attention cannot be compiled inside of torch.func's transforms: keep the "
                "transform out of the compiled function, or compile only what is around it"
            )
        found = Attention.apply(*arguments)
    elif adapter.recorded() or not differentiable(query, key, value, *options[:2]):
        found = operators.attention(*arguments)
    else:
        found = EagerAttention.apply(query, key, value, *options[:2], (out_dtype, options[2:]))
    return tuple(found) if return_lse else found[0]


def _refuse_out(out: Any, algorithm: Any) -> None:
    if out is not None:
        raise ValueError(
            "out cannot be given where an input requires grad, inside of a torch.func transform "
            "or a trace, or with inputs that have no memory: leave it out, or call under "
            "torch.no_grad()"
        )
    if algorithm != "flash":
        raise NotImplementedError(
            f"algorithm={algorithm!r} has no derivative and cannot be traced; where an input "
            'requires grad, inside of a torch.func transform or a trace only "flash" can be used'
        )


def _check(argument: str, x: Any) -> None:
    """Whether the operators take it, said in fanano's words."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"{argument} must be a torch tensor, got {type(x).__name__}; fanano.attention takes "
            "arrays of every library, those of one call from one library"
        )
    if x.layout is not torch.strided or x.device.type not in ("cpu", "cuda", "meta"):
        adapter.diagnose(True, **{argument: x})
    adapter.check_streams(argument, x)
    if adapter.has_tangents(x):
        raise NotImplementedError(
            f"{argument} has a forward-mode tangent (jvp, jacfwd, dual numbers), and fanano has no "
            "forward derivatives: use backward, torch.func.grad, vjp or jacrev"
        )


def _check_memory(argument: str, x: torch.Tensor, query: torch.Tensor) -> None:
    """No result can be made of numbers that are not there."""
    if x.is_meta != query.is_meta:
        raise ValueError(
            f"{argument} is on device {x.device} and query on device {query.device}: on meta, "
            "where no numbers are, must be all of query, key and value, or nothing"
        )


def _is_integer(x: Any) -> bool:
    return isinstance(x, int | torch.SymInt) and not isinstance(x, bool)


def _flag(x: Any) -> Any:
    """NumPy's bool as Python's; what is neither is for the operator to refuse."""
    return bool(x) if type(x).__module__ == "numpy" and "bool" in type(x).__name__ else x


def _integer(x: Any) -> Any:
    """NumPy's integers as Python's."""
    return operator.index(x) if type(x).__module__ == "numpy" and x.ndim == 0 else x


def _window(window_size: Any) -> tuple[Any, Any]:
    if window_size is None:
        return None, None
    if isinstance(window_size, tuple | list):
        window_size = tuple(map(_integer, window_size))
    if (
        not isinstance(window_size, tuple | list)
        or len(window_size) != 2
        or not all(x is None or _is_integer(x) for x in window_size)
    ):
        raise TypeError(
            "window_size must be None or (left, right), each an integer or None, "
            f"got {window_size!r}"
        )
    left, right = window_size
    return left, right


def _seed(seed: Any, dropout_p: Any, query: Any) -> Any:
    """As a tensor of one integer; None where nothing is dropped."""
    if isinstance(seed, torch.Tensor) and (seed.dim() or "int" not in str(seed.dtype)):
        raise TypeError(
            f"seed must be one integer, got a tensor of {seed.dtype} of shape {tuple(seed.shape)}"
        )
    seed = _integer(seed)
    if seed is not None and not _is_integer(seed) and not isinstance(seed, torch.Tensor):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
    if dropout_p == 0:
        return None
    if seed is None:
        return adapter.seed_tensor(query)
    if isinstance(seed, torch.Tensor):
        return seed
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be an integer of at most 64 bits, got {seed}")
    device = query.device if query.is_cuda else "cpu"
    return torch.full((), seed - 2**64 if seed >= 2**63 else seed, dtype=torch.int64, device=device)


def _offset(dropout_offset: Any) -> tuple[Any, ...]:
    if isinstance(dropout_offset, tuple | list):
        found = tuple(map(_integer, dropout_offset))
        if len(found) == 4 and all(map(_is_integer, found)):
            return found
    raise TypeError(
        f"dropout_offset must be four integers, (batch, head, row, column), got {dropout_offset!r}"
    )


def _tensor(argument: str, x: Any, query: Any, dtype: torch.dtype | None = None) -> Any:
    """x as a tensor; lists and scalars of this dtype, or of their own. All but a mask stays in the
    host's memory, from where a launch takes it along: a copy to a device would be waited for."""
    if x is None or isinstance(x, torch.Tensor):
        return x
    if hasattr(type(x), "__dlpack__"):
        dtype = None
    elif isinstance(x, list | tuple) and not x and dtype is None:
        dtype = torch.int64
    if hasattr(x, "copy"):  # else the backward pass would see what is written into it until then
        x = x.copy()
    device = "cpu" if query.is_cuda and argument != "attn_mask" else query.device
    try:
        return torch.as_tensor(x, dtype=dtype, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{argument} must be a tensor or numbers that make one, got {type(x).__name__}: {error}"
        ) from None


def _constant(argument: str, x: Any) -> Any:
    if isinstance(x, torch.Tensor) and differentiable(x):
        refuse_derivative(argument)
    return x


def _number(argument: str, x: Any) -> Any:
    _constant(argument, x)
    if x is None or isinstance(x, float | torch.SymFloat):
        return x
    if isinstance(x, torch.Tensor) and torch.compiler.is_compiling():
        raise TypeError(
            f"{argument} must be a number in what is compiled, got a tensor: pass "
            f"{argument}.item() from outside" + ", or multiply query by it" * (argument == "scale")
        )
    try:
        if not isinstance(x, bool | str):
            return float(x)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{argument} must be a number, got {type(x).__name__}")
