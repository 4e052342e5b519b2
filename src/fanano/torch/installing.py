"""fanano in the place of torch's own CPU kernels: ``F.scaled_dot_product_attention`` of a process.

torch's flash attention on CPUs is an operator of its own, and so is its backward; autograd and the
compiler know both. Their CPU kernels are replaced, so all that torch does above them stays.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import operators

__all__ = ["install", "installed", "is_installed", "uninstall"]

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"
DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16

calls = {"forward": 0, "backward": 0, "left": 0}  # since the start: ours, and handed back to torch
_counting = threading.Lock()


def _renew() -> None:
    """The lock, in a forked child: another thread may have held it."""
    global _counting
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
_library: Any = None
_of_torch: dict[str, Any] = {}


def install() -> None:
    """Puts fanano under ``torch.nn.functional.scaled_dot_product_attention``, for CPU tensors.

    Forward and backward, eager and compiled, in the whole process, until ``uninstall()``:
    ``torch.nn.MultiheadAttention``, ``torch.nn.TransformerEncoder`` and whatever else calls it,
    where torch would use its flash kernel for CPUs. What torch does not give to that kernel stays
    as it was: dropout, masks that require grad, values of another head dim than the keys',
    inputs of other than four dimensions, nested tensors. So does what fanano does not take: head
    dims above 576, and heads that are no multiple of the key heads.

    Installed twice is installed once. Results are torch's but for rounding, and but for what stands
    behind masks: NaN and infinities there reach nothing.

    Raises:
        RuntimeError: this torch has no such kernels, or cannot say what they are.
    """
    global _library
    if _library is not None:
        return
    get_kernel = getattr(torch.library, "get_kernel", None)
    if get_kernel is None or not hasattr(torch.ops.aten, BACKWARD):
        raise RuntimeError(
            f"fanano cannot be installed into torch {torch.__version__}: it has no "
            "torch.library.get_kernel, or no flash attention for CPUs; call "
            "fanano.torch.scaled_dot_product_attention instead (torch 2.13 has both)"
        )
    for name in (FORWARD, BACKWARD):
        if name not in _of_torch:
            _of_torch[name] = get_kernel(f"aten::{name}", "CPU")
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced is what was asked for
        library.impl(FORWARD, _forward, "CPU", with_keyset=True)
        library.impl(BACKWARD, _backward, "CPU", with_keyset=True)
    _library = library


def uninstall() -> None:
    """Gives ``F.scaled_dot_product_attention`` back to torch; nothing if it has it already."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None


def is_installed() -> bool:
    """Whether ``install()`` is in force in this process."""
    return _library is not None


@contextmanager
def installed() -> Iterator[None]:
    """``with fanano.torch.installed():`` installs, and then restores what was before.

    It holds for the whole process, other threads too: it is no property of the block.
    """
    before = is_installed()
    install()
    try:
        yield
    finally:
        if not before:
            uninstall()


def _count(what: str) -> None:
    with _counting:
        calls[what] += 1


def _taken(query: Any, key: Any, value: Any, dropout_p: float) -> bool:
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[-1]
    return (
        dropout_p == 0
        and query.dtype in DTYPES
        and 1 <= dim <= 576
        and kv_heads == value.shape[1]
        and (heads % kv_heads == 0 if kv_heads else heads == 0)
    )


def _forward(
    keys: Any,
    query: Any,
    key: Any,
    value: Any,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
) -> Any:
    if not _taken(query, key, value, dropout_p):
        _count("left")
        return _of_torch[FORWARD].call_boxed(
            keys, query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )
    _count("forward")
    out = torch.empty_like(query)  # of the strides that torch's kernel, and its fake, give it
    options = _options(is_causal, attn_mask, scale, "bhsd")
    _, lse = operators.attention_kernel(query, key, value, None, *options, out=out)
    # A row that sees nothing: torch's backward, should it be that one, knows it by an lse of 0.
    lse.masked_fill_(lse == -torch.inf, 0)
    return out, lse.transpose(1, 2).contiguous().transpose(1, 2)


def _backward(
    keys: Any,
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    dropout_p: float,
    is_causal: bool,
    *,
    attn_mask: Any = None,
    scale: float | None = None,
) -> Any:
    arrays = grad_out, query, key, value, out
    if not _taken(query, key, value, dropout_p):
        return _of_torch[BACKWARD].call_boxed(
            *(keys, *arrays, logsumexp, dropout_p, is_causal), attn_mask=attn_mask, scale=scale
        )
    _count("backward")
    # As (B, S, H, D): so lie torch's gradients in memory.
    rows = (x.transpose(1, 2) for x in arrays)
    options = _options(is_causal, attn_mask, scale, "bshd")
    found = operators.attention_backward_kernel(*rows, logsumexp, None, False, *options)
    return tuple(x.transpose(1, 2) for x in found[:3])


def _options(is_causal: bool, attn_mask: Any, scale: float | None, layout: str) -> tuple[Any, ...]:
    offset = 0 if is_causal else None
    return (
        *(attn_mask, *(None,) * (operators.TENSOR_OPTIONS - 1)),
        *(is_causal, None, None, offset, scale, None),
        *(0.0, 0, 0, 0, 0, layout),  # no dropout
    )
