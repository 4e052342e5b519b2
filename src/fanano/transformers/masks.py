"""What a model's attention is told of the keys that it may see.

transformers asks for a mask once for each kind of layer, and hands it to all of them. What is told
is a tensor, for it must pass through ``generate()``, gradient checkpoints and the compiler; and
nothing of size (L, S) where less will do. L queries, S keys in the cache, K of them in use:

None                     no key is hidden, but by the causality of the layer
uint8 (B, K)             the first K keys are in use; 0 hides one of them, as padding
uint8 (B, W, K)          the same, and a query sees W keys, its own included (on both sides, if the
                         layer is not causal): a view that repeats itself W times, of no memory
bool or additive, 4-D    of transformers: it says everything, causality included

In the second and third the last query stands at the last key in use. They are no booleans lest a
model that combines its mask with one of its own takes them for one of its own: such a product would
broadcast, and lack the causality. Of bytes it is refused. Where generate() asks for the mask, the
second passes through the model as if it were the user's padding: it has a row for each sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sdpa_mask,
)
from transformers.utils.import_utils import is_tracing

__all__ = ["COMPACT", "mask"]

COMPACT = torch.uint8


def mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    config: Any = None,
    device: Any = "cpu",
    **options: Any,
) -> torch.Tensor | None:
    """What transformers' mask interface asks of an attention implementation.

    Args:
        q_offset, kv_offset: the positions of the first query and of the first key. Static caches
            give the former as a tensor.
        mask_function: which key a query sees, by their positions.
        attention_mask: (B, all keys so far), True where there is no padding.
        local_size: the window or the chunk of ``mask_function``, if it has one.
        allow_is_causal_skip, allow_is_bidirectional_skip: whether ``mask_function`` is no more than
            causal (bidirectional) attention within its window, and less than 4-D may be returned.
        config: the model's, which tells a window from a chunk.

    Returns:
        One of the four that this module tells of.
    """
    if attention_mask is not None and attention_mask.dtype == COMPACT:
        return attention_mask  # generate() has asked before
    causal, window, keys = allow_is_causal_skip, local_size, None
    if _is_simple(mask_function, window, causal, allow_is_bidirectional_skip, config):
        keys = _keys_in_use(causal, window, q_length, kv_length, q_offset, kv_offset)
    if keys is None:
        everything: torch.Tensor | None = sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            local_size=local_size,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
            device=device,
            **options,
        )
        return everything
    visible = _visible(attention_mask, kv_offset, keys)
    if window is not None and window >= keys:
        window = None
    if visible is None:
        if window is None and keys == kv_length and (not causal or q_length in (1, keys)):
            return None
        visible = torch.ones(batch_size, keys, dtype=COMPACT, device=device)
    if window is None:
        return visible
    return visible[:, None].expand(-1, window if causal else window + 1, -1)


def _is_simple(
    mask_function: Any, window: int | None, causal: bool, bidirectional: bool, config: Any
) -> bool:
    """Whether causality (or none), a window and padding are all there is to the mask."""
    if causal == bidirectional:
        return False
    if window is None:
        return mask_function is (causal_mask_function if causal else bidirectional_mask_function)
    # Or a chunk: the functions are closures, and look alike. With anything on top of them both
    # permissions are withdrawn.
    chunk = getattr(config, "attention_chunk_size", None)
    return window == getattr(config, "sliding_window", None) and window != chunk


def _keys_in_use(
    causal: bool,
    window: int | None,
    q_length: int,
    kv_length: int,
    q_offset: Any,
    kv_offset: int,
) -> int | None:
    """How many, if the last query then stands at the last of them where that matters; else None."""
    if isinstance(q_offset, torch.Tensor):
        if is_tracing(q_offset):  # its value is not to be known
            return None
        q_offset = int(q_offset)
    if causal:
        keys: int = q_offset + q_length - kv_offset
        return keys if q_length <= keys <= kv_length else None
    if window is not None and (q_length != kv_length or q_offset != kv_offset):
        return None
    return kv_length


def _visible(padding: torch.Tensor | None, kv_offset: int, keys: int) -> torch.Tensor | None:
    """Of these keys those that are no padding, as bytes; None if they are known to be all."""
    if padding is None:
        return None
    visible = padding[:, kv_offset : kv_offset + keys]
    if visible.shape[1] < keys:  # what it does not speak of is hidden, as transformers has it
        visible = torch.nn.functional.pad(visible, (0, keys - visible.shape[1]))
    elif not is_tracing(visible) and bool(visible.all()):
        return None
    return visible.to(COMPACT)
