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

import fanano.jax

# (batch, rows, heads, dim)
ATTENTIONS: dict[str, Callable[..., Any]] = {
    "fanano": fanano.jax.dot_product_attention,
    "jax": jax.nn.dot_product_attention,
}
Weights = dict[str, Any]


def logits(
    weights: Weights,
    tokens: Any,
    sizes: gpt.Sizes,
    attention: Callable[..., Any],
    dropout: Callable[[int], dict[str, Any]],
) -> Any:
    """(batch, context, characters), by pre-norm blocks of grouped-query attention and an MLP; the
    embedding is the output too. dropout(layer): what a layer tells attention of it."""
    x = weights["characters"][tokens] + weights["positions"][: tokens.shape[1]]
    for layer in range(sizes.layers):
        qkv = (normalised(x) @ weights[f"{layer}.qkv"]).reshape(*x.shape[:2], -1, sizes.dim)
        ends = [sizes.heads, sizes.heads + sizes.kv_heads]
        query, key, value = jnp.split(qkv, ends, axis=2)
        out = attention(query, key, value, is_causal=True, **dropout(layer)).reshape(x.shape)
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
    if dropout and attention == "jax":
        raise SystemExit("--dropout: jax.nn.dot_product_attention has none; use --attention fanano")
    attend = ATTENTIONS[attention]
    first, update, weights_of = optimizers.adam(sizes.learning_rate)

    def loss_of(weights: Weights, number: Any, tokens: Any, following: Any) -> Any:
        def drop(layer: int) -> dict[str, Any]:
            key = jax.random.fold_in(jax.random.key(seed), number * sizes.layers + layer)
            return {"dropout_p": dropout, "seed": jax.random.bits(key)} if dropout else {}

        scores = jax.nn.log_softmax(logits(weights, tokens, sizes, attend, drop))
        return -jnp.take_along_axis(scores, following[..., None], axis=-1).mean()

    @partial(jax.jit, donate_argnums=1)
    def step(number: Any, state: Any, tokens: Any, following: Any) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(weights_of(state), number, tokens, following)
        return loss, update(number, gradient, state)

    state = first({name: jnp.asarray(x) for name, x in gpt.parameters(sizes, seed).items()})
    losses = []
    for number, (tokens, following) in enumerate(gpt.batches(sizes, steps, seed)):
        loss, state = step(number, state, tokens, following)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    gpt.main(__doc__, tuple(ATTENTIONS), train)
