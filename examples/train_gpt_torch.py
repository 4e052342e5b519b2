"""Trains a small GPT on this repository's own pages, in PyTorch, by fanano's or torch's attention.

    python examples/train_gpt_torch.py [--attention fanano|torch] [--steps 300] [--plot losses.png]

Without --attention by both, from the same weights and batches: the losses lie on one another, as
far as float32 goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gpt
import torch
from torch.nn import functional as F

import fanano.torch

ATTENTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "fanano": fanano.torch.scaled_dot_product_attention,
    "torch": F.scaled_dot_product_attention,
}


class GPT(torch.nn.Module):
    """Pre-norm blocks of grouped-query attention and an MLP; the embedding is the output too."""

    def __init__(self, sizes: gpt.Sizes, seed: int, attention: Any, dropout: float) -> None:
        super().__init__()
        self.sizes, self.attention, self.dropout = sizes, attention, dropout
        weights = {k.replace(".", "_"): v for k, v in gpt.parameters(sizes, seed).items()}
        self.weights = torch.nn.ParameterDict({k: torch.from_numpy(v) for k, v in weights.items()})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (batch, context, characters)."""
        x = self.weights["characters"][tokens] + self.weights["positions"][: tokens.shape[1]]
        for layer in range(self.sizes.layers):
            x = x + self.attend(layer, normalised(x)) @ self.weights[f"{layer}_out"]
            inner = F.gelu(normalised(x) @ self.weights[f"{layer}_up"])
            x = x + inner @ self.weights[f"{layer}_down"]
        return normalised(x) @ self.weights["characters"].T

    def attend(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        sizes = self.sizes
        parts = [count * sizes.dim for count in (sizes.heads, sizes.kv_heads, sizes.kv_heads)]
        query, key, value = (
            part.unflatten(-1, (-1, sizes.dim)).transpose(1, 2)
            for part in (x @ self.weights[f"{layer}_qkv"]).split(parts, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        out = self.attention(query, key, value, None, dropout, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).flatten(2)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:])


def train(
    attention: str, sizes: gpt.Sizes, steps: int, seed: int = 0, dropout: float = 0.0
) -> list[float]:
    """The losses of so many steps of AdamW."""
    torch.manual_seed(seed)
    model = GPT(sizes, seed, ATTENTIONS[attention], dropout)
    optimizer = torch.optim.AdamW(model.parameters(), sizes.learning_rate, weight_decay=0.1)
    losses = []
    for tokens, following in gpt.batches(sizes, steps, seed):
        logits = model(torch.from_numpy(tokens))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(following).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    torch.set_num_threads(1)  # the bits of torch's own sums depend on it
    gpt.main(__doc__, tuple(ATTENTIONS), train)
