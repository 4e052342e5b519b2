"""fanano in the place of torch's flash attention on CUDA devices: an implementation of torch's own
register (``torch.nn.attention.register_flash_attention_impl``), named ``fanano``. Private.

torch calls it for what its flash back end takes (sdpa_kernel, or its own choice): float16 and
bfloat16, no mask, head dims padded to multiples of 8. What fanano leaves goes to the kernels of
torch itself. is_causal is the lower-right one here: torch gives this operator square problems, or
means that.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.attention

from .. import _core
from . import operators
from .takeover import count, options, replacing, taken

__all__ = ["BACKWARD", "FORWARD", "NAME", "activate", "available", "is_active", "restore", "runs"]

NAME = "fanano"
FORWARD = "_scaled_dot_product_flash_attention"
BACKWARD = "_scaled_dot_product_flash_attention_backward"

_of_torch: dict[str, Any] = {}
_before: str | None = None  # the implementation that was active


class _Handle:
    """What torch's register keeps while this implementation is active."""

    def __init__(self) -> None:
        for name in (FORWARD, BACKWARD):  # the register has taken every other one away
            if name not in _of_torch:
                _of_torch[name] = torch.library.get_kernel(f"aten::{name}", "CUDA")
        self._library = replacing("CUDA", {FORWARD: _forward, BACKWARD: _backward})

    def remove(self) -> None:
        self._library._destroy()


def available() -> bool:
    """Whether this torch has flash attention on CUDA, and the register."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return (
        torch.version.cuda is not None  # of AMD's devices torch says that they are CUDA's
        and hasattr(torch.nn.attention, "register_flash_attention_impl")
        and has_kernel(f"aten::{FORWARD}", "CUDA")
        and has_kernel(f"aten::{BACKWARD}", "CUDA")
    )


@cache
def runs() -> bool:
    """Whether fanano's kernels can run: its CUDA may be newer than torch's, and than the driver.
    Asked when torch uses a device, for it would begin to."""
    return any(kernel.device == "cuda" and kernel.runnable for kernel in _core.kernels())


def activate() -> None:
    global _before
    register = torch.nn.attention
    _before = register.current_flash_attention_impl()
    register.register_flash_attention_impl(NAME, register_fn=_Handle)
    register.activate_flash_attention_impl(NAME)


def is_active() -> bool:
    current = getattr(torch.nn.attention, "current_flash_attention_impl", None)
    return current is not None and current() == NAME


def restore() -> None:
    """Gives back what was there, unless another one has taken fanano's place."""
    if not is_active():
        return
    register = torch.nn.attention
    register.restore_flash_attention_impl()
    if _before is not None:
        register.activate_flash_attention_impl(_before)


def _forward(
    keys: Any,
    query: Any,
    key: Any,
    value: Any,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    if return_debug_mask or not (taken(query, key, value, dropout_p) and runs()):
        count("left")
        return _of_torch[FORWARD].call_boxed(
            *(keys, query, key, value, dropout_p, is_causal, return_debug_mask), scale=scale
        )
    count("forward")
    out = torch.empty_like(query)  # of the strides that torch's kernel, and its fake, give it
    found = options(is_causal, None, None, scale, "bhsd")
    _, lse = operators.attention_kernel(query, key, value, None, *found, out=out)
    if _rows_see_nothing(query, key, is_causal):
        lse.masked_fill_(lse == -torch.inf, torch.inf)  # as torch's backward knows them
    # No packed sequences; and the state of dropout, which nobody reads: nothing is dropped.
    state, unused = (query.new_empty(shape, dtype=torch.uint64) for shape in ((2,), ()))
    rows = query.shape[2], key.shape[2]
    return out, lse, None, None, *rows, state, unused, query.new_empty(0)


def _backward(
    keys: Any,
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    cum_seq_q: Any,
    cum_seq_k: Any,
    max_q: int,
    max_k: int,
    dropout_p: float,
    is_causal: bool,
    philox_seed: Any,
    philox_offset: Any,
    *,
    scale: float | None = None,
) -> Any:
    if not (taken(query, key, value, dropout_p) and runs()):
        return _of_torch[BACKWARD].call_boxed(
            *(keys, grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k),
            *(max_q, max_k, dropout_p, is_causal, philox_seed, philox_offset),
            scale=scale,
        )
    count("backward")
    if _rows_see_nothing(query, key, is_causal):
        logsumexp = logsumexp.masked_fill(logsumexp == torch.inf, -torch.inf)
    rows_first = query.stride(1) < query.stride(2)  # in memory, and so will the gradients be
    arrays = (x.transpose(1, 2) if rows_first else x for x in (grad_out, query, key, value, out))
    found = options(is_causal, None, None, scale, "bshd" if rows_first else "bhsd")
    gradients = operators.attention_backward_kernel(*arrays, logsumexp, None, False, *found)[:3]
    return tuple(
        _laid_like(x, gradient.transpose(1, 2) if rows_first else gradient)
        for x, gradient in zip((query, key, value), gradients, strict=True)
    )


def _rows_see_nothing(query: Any, key: Any, is_causal: bool) -> bool:
    """Some of them: those that stand before the first key."""
    return is_causal and bool(query.shape[2] > key.shape[2])


def _laid_like(x: Any, gradient: Any) -> Any:
    """In memory as torch's kernel, and its fake, lay the gradient by x."""
    strides = torch.empty_like(x, device="meta").stride()
    if gradient.stride() == strides:
        return gradient
    return torch.empty_like(x).copy_(gradient)
