"""fanano in the place of torch's own kernels: ``F.scaled_dot_product_attention`` of a process.

torch's flash attention on CPUs is an operator of its own, and so is its backward; autograd and the
compiler know both. Their CPU kernels are replaced, so all that torch does above them stays. That on
CUDA is flash_cuda.py's.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .. import _core
from . import flash_cuda, operators
from .takeover import calls, count, options, replacing, taken

__all__ = ["calls", "install", "installed", "is_installed", "uninstall"]

FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"

# Who wants it: install(), and so many blocks of installed().
_lock = threading.Lock()
_for_good = False
_blocks = 0

_library: Any = None
_of_torch: dict[str, Any] = {}


def install() -> None:
    """Puts fanano under ``torch.nn.functional.scaled_dot_product_attention``.

    Forward and backward, eager and compiled, in the whole process, until ``uninstall()``:
    ``torch.nn.MultiheadAttention``, ``torch.nn.TransformerEncoder`` and whatever else calls it,
    where torch would use its flash kernel for CPUs. What torch does not give to that kernel stays
    as it was: dropout, masks that require grad, values of another head dim than the keys',
    inputs of other than four dimensions, nested tensors. So does what fanano does not take: head
    dims above 576, and heads that are no multiple of the key heads.

    Where torch and fanano both have CUDA, torch's flash back end there is fanano, too, as the one
    of that name in torch's register of them (torch.nn.attention.activate_flash_attention_impl).
    Dropout stays torch's, and so does what torch gives to another back end: masks, float32.

    Installed twice is installed once. Results are torch's but for rounding, and but for what stands
    behind masks: NaN and infinities there reach nothing.

    Raises:
        RuntimeError: this torch has no such kernels, or cannot say what they are.
    """
    global _for_good
    with _lock:
        _put_in_place()
        _for_good = True


def uninstall() -> None:
    """Gives ``F.scaled_dot_product_attention`` back to torch; nothing if it has it already.

    Where a block of ``installed()`` is under way, in any thread, the end of the last one does.
    """
    global _for_good
    with _lock:
        _for_good = False
        _take_away()


def is_installed() -> bool:
    """Whether ``install()`` is in force in this process."""
    return _library is not None


@contextmanager
def installed() -> Iterator[None]:
    """``with fanano.torch.installed():`` installs; the end takes it back if nobody else wants it.

    Others are ``install()``, and further such blocks, of other threads too: it holds for the whole
    process, and is no property of the block.
    """
    global _blocks
    with _lock:
        _put_in_place()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            _take_away()


def _put_in_place() -> None:
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
    _library = replacing("CPU", {FORWARD: _forward, BACKWARD: _backward})
    if _core.build_info()["cuda"] and flash_cuda.available():
        flash_cuda.activate()


def _take_away() -> None:
    """Unless somebody wants it."""
    global _library
    if _library is None or _for_good or _blocks:
        return
    flash_cuda.restore()
    _library._destroy()
    _library = None


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
    if not taken(query, key, value, dropout_p):
        count("left")
        return _of_torch[FORWARD].call_boxed(
            keys, query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )
    count("forward")
    out = torch.empty_like(query)  # of the strides that torch's kernel, and its fake, give it
    found = options(is_causal, _offset(is_causal), attn_mask, scale, "bhsd")
    _, lse = operators.attention_kernel(query, key, value, None, *found, out=out)
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
    if not taken(query, key, value, dropout_p):
        return _of_torch[BACKWARD].call_boxed(
            *(keys, *arrays, logsumexp, dropout_p, is_causal), attn_mask=attn_mask, scale=scale
        )
    count("backward")
    # As (B, S, H, D): so lie torch's gradients in memory.
    rows = (x.transpose(1, 2) for x in arrays)
    found = options(is_causal, _offset(is_causal), attn_mask, scale, "bshd")
    gradients = operators.attention_backward_kernel(*rows, logsumexp, None, False, *found)
    return tuple(x.transpose(1, 2) for x in gradients[:3])


def _offset(is_causal: bool) -> int | None:
    """The upper-left mask."""
    return 0 if is_causal else None
