"""What install() takes over of torch's flash attention, on every device, and how often. Private."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import inspect
import os
import threading
import warnings
from typing import Any

import torch

from . import operators

__all__ = ["calls", "count", "options", "replacing", "taken"]

DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16

calls = {"forward": 0, "backward": 0, "left": 0}  # since the start: ours, and handed back to torch
_counting = threading.Lock()


def _renew() -> None:
    """The lock, in a forked child: another thread may have held it."""
    global _counting
    _counting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def count(what: str) -> None:
    with _counting:
        calls[what] += 1


def taken(query: Any, key: Any, value: Any, dropout_p: float) -> bool:
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[-1]
    return (
        dropout_p == 0
        and query.dtype in DTYPES
        and 1 <= dim <= 576
        and kv_heads == value.shape[1]
        and (heads % kv_heads == 0 if kv_heads else heads == 0)
    )


def options(
    is_causal: bool,
    q_offset: int | None,
    attn_mask: Any,
    scale: float | None,
    layout: str,
) -> tuple[Any, ...]:
    """Of the operators, for torch's."""
    return (
        *(attn_mask, *(None,) * (operators.TENSOR_OPTIONS - 1)),
        *(is_causal, None, None, q_offset, scale, None),
        *(0.0, 0, 0, 0, 0, layout),  # no dropout
    )


def replacing(key: str, kernels: dict[str, Any]) -> Any:
    """A library of torch's that has these in the place of its own kernels, by their names, for the
    CPU or CUDA, until it is destroyed."""
    library = torch.library.Library("aten", "IMPL")
    parameters = inspect.signature(library.impl).parameters
    # torch 2.11 refuses what it has not been asked for; torch before that does not know the word.
    asked = {"allow_override": True} if "allow_override" in parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced is what was asked for
        for name, kernel in kernels.items():
            library.impl(name, kernel, key, with_keyset=True, **asked)
    return library
