"""fanano in Hugging Face transformers: ``attn_implementation="fanano"``, masks included.

Importing this imports transformers and torch. CPU tensors only.
"""

from __future__ import annotations

from transformers import AttentionInterface, AttentionMaskInterface

from .layers import attention
from .masks import mask

__all__ = ["register"]


def register() -> None:
    """Makes ``attn_implementation="fanano"`` known to transformers, in this process.

    After it ``AutoModel.from_pretrained(..., attn_implementation="fanano")`` and
    ``model.set_attn_implementation("fanano")`` give models whose attention is fanano's: prefill and
    decode, every cache, training, gradient checkpointing, ``torch.compile``. Registered twice is
    registered once; models that are not told of it stay as they are.

    Padding, causality and sliding windows reach the kernel as such, and no mask of (L, S) is made
    for them; what transformers adds to them (packed sequences, chunks, blocks, prefixes) comes as
    its boolean mask. docs/transformers.md has the details, and what is refused.
    """
    AttentionInterface.register("fanano", attention)
    AttentionMaskInterface.register("fanano", mask)
