"""The attention of a model's layers, as transformers calls it."""

from __future__ import annotations

from typing import Any

import torch

from ..torch import attention as fanano_attention
from .masks import COMPACT

__all__ = ["attention"]

# What chooses keys by other means than masks: for kernels that are made for one model.
SPARSE = "indices", "block_indices", "sinks"


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    output_attentions: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' attention interface asks of an implementation.

    Args:
        query: (B, Hq, L, D).
        key, value: (B, H, S, D) and (B, H, S, Dv): query head h uses key head h // (Hq // H).
        attention_mask: one of the four of masks.py.
        dropout: the seed is of torch's generator.
        is_causal: None: as the module says, else True.
        sliding_window: how many keys a query sees, its own included. Where the mask has a window,
            or is 4-D, that holds.
        s_aux: (Hq,), attention sinks.
        position_bias: added to the scores, it broadcasts to (B, Hq, L, S).

    Returns:
        (B, L, Hq, Dv), contiguous, and None for the attention weights, which are never stored. A
        row that may attend to nothing (padding, on the left) is 0.

    Raises:
        NotImplementedError: sparse attention.
        TypeError, ValueError: an argument is wrong; attention weights are asked for.
    """
    _refuse(others, output_attentions)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    rows, keys = query.shape[2], key.shape[2]
    mask = attention_mask
    if mask is None:
        # As transformers has it for sdpa: a first call, with a static cache that is empty yet.
        if is_causal and 1 < rows < keys:
            keys = rows
    elif mask.dtype == COMPACT:
        if mask.dim() > 3:
            raise ValueError(
                f"attention_mask has shape {tuple(mask.shape)} and bytes: the model has combined "
                "what it was given with a mask of its own, which fanano cannot follow: "
                'model.set_attn_implementation("sdpa") or "eager" can'
            )
        if mask.dim() == 3:
            sliding_window = mask.shape[1]
            mask = mask[:, 0]
        keys = mask.shape[-1]
        mask = mask.view(torch.bool)[:, None, None, :]
    else:
        is_causal, sliding_window = False, None
    if position_bias is not None:
        mask = _with_bias(position_bias[..., :keys], mask)
    window = None
    if sliding_window is not None:
        window = sliding_window - 1, 0 if is_causal else sliding_window - 1
    out: torch.Tensor = fanano_attention(
        query.transpose(1, 2),
        key[:, :, :keys].transpose(1, 2),
        value[:, :, :keys].transpose(1, 2),
        attn_mask=mask,
        is_causal=is_causal,
        window_size=window,
        scale=scaling,
        softcap=softcap,
        sinks=s_aux,
        dropout_p=dropout,
        layout="bshd",
    )
    return out, None


def _refuse(others: dict[str, Any], output_attentions: bool | None) -> None:
    if output_attentions:
        raise ValueError(
            "output_attentions=True asks for attention weights, which fanano never stores: "
            'model.set_attn_implementation("eager") gives them'
        )
    for name in SPARSE:
        if others.get(name) is not None:
            raise NotImplementedError(
                f"the model passes {name} to its attention, and fanano computes no such sparse "
                'attention: model.set_attn_implementation("eager") does'
            )


def _with_bias(bias: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return bias
    return torch.where(mask, bias, -torch.inf) if mask.dtype == torch.bool else bias + mask
