"""Trains a small GPT on this repository's own pages, in JAX, by fanano's or JAX's attention.

    python examples/train_gpt_jax.py [--attention fanano|jax] [--steps 300] [--plot losses.png]

Without --attention by both, from the same weights and batches: the losses lie on one another, as
far as float32 goes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gpt
import jax
from jax import numpy as jnp
from jax.example_libraries import optimizers

ATTENTIONS = "fanano", "jax"
Weights = dict[str, Any]


def attention_of(name: str) -> Callable[..., Any]:
    """jax.nn.dot_product_attention, or fanano's in its place: (batch, rows, heads, dim)."""
    if name == "jax":
        return jax.nn.dot_product_attention
    try:
        from fanano.jax import dot_product_attention
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"this fanano has no fanano.jax ({error}): use --attention jax, or a newer fanano"
        ) from None
    found: Callable[..., Any] = dot_product_attention
    return found


def logits(weights: Weights, tokens: Any, sizes: gpt.Sizes, attention: Callable[..., Any]) -> Any:
    """(batch, context, characters), by pre-norm blocks of grouped-query attention and an MLP; the
    embedding is the output too."""
    x = weights["characters"][tokens] + weights["positions"][: tokens.shape[1]]
    for layer in range(sizes.layers):
        qkv = (normalised(x) @ weights[f"{layer}.qkv"]).reshape(*x.shape[:2], -1, sizes.dim)
        ends = [sizes.heads, sizes.heads + sizes.kv_heads]
        query, key, value = jnp.split(qkv, ends, axis=2)
        out = attention(query, key, value, is_causal=True).reshape(x.shape)
        x = x + out @ weights[f"{layer}.out"]
        inner = jax.nn.gelu(normalised(x) @ weights[f"{layer}.up"], approximate=False)
        x = x + inner @ weights[f"{layer}.down"]
    return normalised(x) @ weights["characters"].T


def normalised(x: Any) -> Any:
    return jax.nn.standardize(x, epsilon=1e-5)


def train(
    attention: str, sizes: gpt.Sizes, steps: int, seed: int = 0, dropout: float = 0.0
) -> list[float]:
    """The losses of so many steps of Adam."""
    if dropout:
        raise SystemExit("--dropout: jax.nn.dot_product_attention has none")
    attend = attention_of(attention)
    first, update, weights_of = optimizers.adam(sizes.learning_rate)

    def loss_of(weights: Weights, tokens: Any, following: Any) -> Any:
        scores = jax.nn.log_softmax(logits(weights, tokens, sizes, attend))
        return -jnp.take_along_axis(scores, following[..., None], axis=-1).mean()

    @partial(jax.jit, donate_argnums=1)
    def step(number: Any, state: Any, tokens: Any, following: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(weights_of(state), tokens, following)
        return loss, update(number, gradient, state)

    state = first({name: jnp.asarray(x) for name, x in gpt.parameters(sizes, seed).items()})
    losses = []
    for number, (tokens, following) in enumerate(gpt.batches(sizes, steps, seed)):
        loss, state = step(number, state, tokens, following)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    gpt.main(__doc__, ATTENTIONS, train)
