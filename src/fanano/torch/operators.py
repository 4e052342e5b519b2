"""``fanano::attention`` and ``fanano::attention_backward`` as torch's dispatcher knows them.

Schemas, kernels, and the shapes that tracing needs. Their derivatives are autograd.py's. Of the
options the tensors come first, then the numbers. What is not asked for is a tensor of no elements,
for a schema cannot say None. Private.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, call-arg"

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from ..adapters import torch as adapter

__all__ = ["TENSOR_OPTIONS", "attention", "attention_backward", "library"]

TENSOR_OPTIONS = 7  # how many of the options are tensors or None
OPTIONS = (
    "Tensor? attn_mask, Tensor? sinks, Tensor? alibi_slopes, Tensor? q_lengths, "
    "Tensor? kv_lengths, Tensor? q_offsets, Tensor? seed, bool is_causal, SymInt? left, "
    "SymInt? right, SymInt? q_offset, float? scale, float? softcap, float dropout_p, "
    "SymInt batch_offset, SymInt head_offset, SymInt row_offset, SymInt column_offset, str layout"
)

library = torch.library.Library("fanano", "DEF")
library.define(
    f"attention(Tensor query, Tensor key, Tensor value, str? out_dtype, {OPTIONS}) "
    "-> (Tensor out, Tensor lse)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
library.define(
    "attention_backward(Tensor dout, Tensor query, Tensor key, Tensor value, Tensor out, "
    f"Tensor lse, Tensor? dlse, bool grad_mask, {OPTIONS}) "
    "-> (Tensor dq, Tensor dk, Tensor dv, Tensor dbias, Tensor dsinks)",
    tags=(torch.Tag.pt2_compliant_tag,),
)

attention = torch.ops.fanano.attention.default
attention_backward = torch.ops.fanano.attention_backward.default


def _core_options(
    query: Any,
    attn_mask: Any,
    sinks: Any,
    alibi_slopes: Any,
    q_lengths: Any,
    kv_lengths: Any,
    q_offsets: Any,
    seed: Any,
    is_causal: bool,
    left: int | None,
    right: int | None,
    q_offset: int | None,
    scale: float | None,
    softcap: float | None,
    dropout_p: float,
    batch_offset: int,
    head_offset: int,
    row_offset: int,
    column_offset: int,
    layout: str,
) -> tuple[Any, ...]:
    """The same in the core's order, from attn_mask to layout, as it reads them beside query."""

    def read(argument: str, x: Any) -> Any:
        return x if x is None else adapter.device_option(argument, adapter.memory(x), query)

    offset = q_offset if q_offsets is None else read("q_offset", q_offsets)
    return (
        *(read("attn_mask", attn_mask), is_causal, (left, right), offset, scale, softcap),
        *(read("alibi_slopes", alibi_slopes), read("sinks", sinks), dropout_p, read("seed", seed)),
        (batch_offset, head_offset, row_offset, column_offset),
        *(read("q_lengths", q_lengths), read("kv_lengths", kv_lengths), layout),
    )


def attention_kernel(
    query: Any, key: Any, value: Any, out_dtype: str | None, *options: Any, out: Any = None
) -> tuple[Any, Any]:
    """The dispatcher has taken gradients, modes and lazy views away: tensors are their memory."""
    found: Any = _core.attention(
        *(adapter.memory(x) for x in (query, key, value)),
        out,
        adapter.empty,
        True,
        *_core_options(query, *options),
        "flash",
        out_dtype,
        adapter.max_threads(),
    )
    return found[0], found[1]


def attention_backward_kernel(
    dout: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    dlse: Any,
    grad_mask: bool,
    *options: Any,
) -> tuple[Any, ...]:
    """None is what is not asked for."""
    found: tuple[Any, ...] = _core.attention_backward(
        *(adapter.memory(x) for x in (dout, query, key, value, out, lse, dlse)),
        adapter.empty,
        grad_mask,
        *_core_options(query, *options),
        adapter.max_threads(),
    )
    return found


def _attention_backward(dout: Any, query: Any, *others: Any) -> tuple[Any, ...]:
    found = attention_backward_kernel(dout, query, *others)
    *gradients, dsinks = (query.new_empty(0) if x is None else x for x in found)
    return (*gradients, dsinks.to(_lse_dtype(query)))


for _device in "CPU", "CUDA":
    library.impl("attention", attention_kernel, _device)
    library.impl("attention_backward", _attention_backward, _device)


def _lse_dtype(query: Any) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


@torch.library.register_fake("fanano::attention", lib=library)
def _attention_fake(
    query: Any, key: Any, value: Any, out_dtype: str | None, *options: Any
) -> tuple[Any, Any]:
    shape = list(query.shape[:-1])
    dtype = query.dtype if out_dtype is None else getattr(torch, out_dtype)
    out = query.new_empty([*shape, value.shape[-1]], dtype=dtype)
    if options[-1] == "bshd" and len(shape) > 1:
        shape[-2:] = reversed(shape[-2:])
    return out, query.new_empty(shape, dtype=_lse_dtype(query))


@torch.library.register_fake("fanano::attention_backward", lib=library)
def _attention_backward_fake(
    dout: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    lse: Any,
    dlse: Any,
    grad_mask: bool,
    *options: Any,
) -> tuple[Any, ...]:
    mask, sinks = options[:2]
    return (
        *(x.new_empty(x.shape) for x in (query, key, value)),
        mask.new_empty(mask.shape) if grad_mask else query.new_empty(0),
        query.new_empty(0 if sinks is None else sinks.shape, dtype=_lse_dtype(query)),
    )
