"""``torch.nn.functional.scaled_dot_product_attention``, by fanano."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..adapters import torch as adapter
from .calls import dispatch

__all__ = ["scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What ``torch.nn.functional.scaled_dot_product_attention`` computes.

    Its arguments and their meaning, shapes and broadcasting; everything said of
    ``fanano.torch.attention`` holds too: gradients (also by a mask), compiling, transforms,
    autocast.

    Args:
        query: (N, ..., Hq, L, E), of two dimensions or more; float64, float32, bfloat16, float16.
        key, value: (N, ..., H, S, E) and (N, ..., H, S, Ev), of the dtype of query. Dimensions
            before the last two broadcast against each other.
        attn_mask: broadcasts to (N, ..., Hq, L, S). bool: True may attend; else it is added.
        dropout_p: the probability with which a pair of a query and a key is dropped; it holds
            whenever it is given, in evaluation pass 0. The seed comes from torch's generator, but
            which pairs it drops is fanano's own choice, the same on every device.
        is_causal: row i sees the keys j <= i, also where L and S differ (upper left). Together with
            attn_mask both apply, as in torch's flash kernel for CPUs (its others refuse that).
        scale: None: 1 / sqrt(E).
        enable_gqa: query head h uses key head h // (Hq // H). K and V are not repeated in memory.

    Returns:
        (N, ..., Hq, L, Ev), of the dtype of query. A row that may attend to nothing is 0, with
        gradients of 0. Unlike with torch, NaN and infinities behind a mask reach nothing.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        NotImplementedError: as for ``fanano.torch.attention``.
    """
    for argument, x in (("query", query), ("key", key), ("value", value)):
        if not isinstance(x, torch.Tensor) or x.dim() < 2:
            came = f"shape {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(
                f"{argument} must be a torch tensor (..., rows, dim) of two dimensions or more, "
                f"got {came}"
            )
    try:
        same = _same_leading(query.shape, key.shape, value.shape)
    except RuntimeError:  # of nested tensors that have no shape
        adapter.diagnose(True, query=query, key=key, value=value)
        raise
    if not same:
        query, key, value = _broadcast(query, key, value, enable_gqa)
    batch: Sequence[int] = ()
    if query.dim() > 4:
        batch = query.shape[:-2]
        if attn_mask is not None and attn_mask.dim() > 3:
            heads = attn_mask.shape[-3]
            attn_mask = attn_mask.expand(*batch[:-1], heads, *attn_mask.shape[-2:])
            attn_mask = attn_mask.flatten(0, -4)
        query, key, value = (x.flatten(0, -4) for x in (query, key, value))
    out: torch.Tensor = dispatch(
        query,
        key,
        value,
        attn_mask=attn_mask,
        is_causal=is_causal,
        q_offset=0 if is_causal else None,
        scale=scale,
        dropout_p=dropout_p,
    )
    return out.reshape(*batch, *out.shape[-2:]) if batch else out


def _same_leading(*shapes: torch.Size) -> bool:
    """All but the last two; number by number, for a slice of a torch.Size takes its time."""
    first, *others = shapes
    for shape in others:
        if len(shape) != len(first):
            return False
        for i in range(len(first) - 2):
            if shape[i] != first[i]:
                return False
    return True


def _broadcast(query: Any, key: Any, value: Any, enable_gqa: bool) -> tuple[Any, Any, Any]:
    """Views of equal leading dimensions, but for heads that are shared."""
    arrays = query, key, value
    leading = [tuple(x.shape[:-2]) for x in arrays]
    heads: list[tuple[int, ...]] = [(), (), ()]
    shared = all(leading) and leading[1][-1] == leading[2][-1]
    if shared and (enable_gqa or leading[1][-1] == 1):
        heads = [x[-1:] for x in leading]
        leading = [x[:-1] for x in leading]
    try:
        common = torch.broadcast_shapes(*leading)
    except RuntimeError:
        raise ValueError(
            "the dimensions of query, key and value before the last two must broadcast, got "
            + ", ".join(str(tuple(x.shape)) for x in arrays)
            + ("" if enable_gqa else "; enable_gqa=True lets query heads share those of key")
        ) from None
    query, key, value = (
        x.expand(*common, *of_x, *x.shape[-2:]) for x, of_x in zip(arrays, heads, strict=True)
    )
    return query, key, value
