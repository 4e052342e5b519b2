"""A BERT-style sentence encoder in NumPy, with the attention as a function passed in.

The same encoder thus runs with every algorithm of fanano, and in float64 as its own oracle.
Source: Devlin et al., "BERT" (2019); pooling as in Reimers and Gurevych, "Sentence-BERT" (2019).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# query, key, value (batch, tokens, heads, dim) and lengths (batch,) -> (batch, tokens, heads, dim)
Attention = Callable[[Array, Array, Array, Array], Array]


class Encoder:
    """The encoder of one model: weights and the few numbers of its configuration.

    weights: the tensors by their names in the checkpoint. config: its ``config.json``.
    dtype: float32 or float64, the precision of every step outside the attention.
    """

    def __init__(
        self, weights: Mapping[str, Array], config: Mapping[str, Any], dtype: type = np.float32
    ) -> None:
        if config["hidden_act"] != "gelu":
            raise ValueError(f"hidden_act is {config['hidden_act']!r}; expected 'gelu'")
        self.weights: dict[str, Array] = {
            name: weight.astype(dtype, copy=False)
            for name, weight in weights.items()
            if weight.dtype.kind == "f"
        }
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]

    @classmethod
    def load(cls, folder: Path, dtype: type = np.float32) -> Encoder:
        """Reads ``model.safetensors`` and ``config.json`` of a checkpoint's folder."""
        from safetensors.numpy import load_file

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return cls(load_file(folder / "model.safetensors"), config, dtype)

    def __call__(self, tokens: Array, lengths: Array, attention: Attention) -> Array:
        """Unit-length embeddings (batch, hidden) of right-padded tokens (batch, longest).

        lengths (batch,) counts the tokens of each row that are not padding.
        """
        x = self.embed(tokens)
        for number in range(self.layers):
            x = self.layer(f"encoder.layer.{number}.", x, lengths, attention)
        # Mean over the real tokens. Padding is selected away, not multiplied by 0: 0 * NaN is NaN.
        real = np.arange(x.shape[1]) < lengths[:, None]
        mean = np.where(real[..., None], x, 0).sum(axis=1) / lengths[:, None].astype(x.dtype)
        return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True))

    def embed(self, tokens: Array) -> Array:
        x = (
            self.weights["embeddings.word_embeddings.weight"][tokens]
            + self.weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        return self.normalise("embeddings.LayerNorm", x)

    def layer(self, name: str, x: Array, lengths: Array, attention: Attention) -> Array:
        split = (*x.shape[:2], self.heads, -1)
        query, key, value = (
            self.linear(f"{name}attention.self.{part}", x).reshape(split)
            for part in ("query", "key", "value")
        )
        attended = attention(query, key, value, lengths).reshape(x.shape)
        attended = self.linear(f"{name}attention.output.dense", attended)
        x = self.normalise(f"{name}attention.output.LayerNorm", x + attended)
        inner = gelu(self.linear(f"{name}intermediate.dense", x))
        return self.normalise(
            f"{name}output.LayerNorm", x + self.linear(f"{name}output.dense", inner)
        )

    def linear(self, name: str, x: Array) -> Array:
        # As one product of two matrices: for 3-D arrays NumPy makes one small product per sentence.
        weight = self.weights[f"{name}.weight"]
        y = x.reshape(-1, x.shape[-1]) @ weight.T + self.weights[f"{name}.bias"]
        return np.asarray(y.reshape(*x.shape[:-1], -1))

    def normalise(self, name: str, x: Array) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])


# NumPy has no erf. Between the points of this table, Phi(x) = (1 + erf(x / sqrt 2)) / 2 is its
# Taylor polynomial around the nearest point. Its derivatives are phi(x) times Hermite polynomials:
# phi' = -x phi, phi'' = (x^2 - 1) phi ... With points 1/256 apart the first term left out is
# (1/512)^5 / 5! = 2e-16 times the fourth derivative of phi, at most 1.2. Beyond 9 Phi is 0 or 1.
_STEP = 1 / 256
_BOUND = 9.0


def _normal_cdf_table() -> Array:
    x = np.arange(-_BOUND, _BOUND + _STEP / 2, _STEP)
    cdf = [0.5 * math.erfc(-point / math.sqrt(2)) for point in x]
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    hermite = [np.ones_like(x), x]
    for n in range(1, 3):
        hermite.append(x * hermite[n] - n * hermite[n - 1])
    terms = [(-1) ** n * h * density / math.factorial(n + 1) for n, h in enumerate(hermite)]
    table = np.stack([np.asarray(cdf), *terms])
    table[:, 0] = 0  # stands for everything below it, where Phi must not stay at 1e-19
    return table


_TABLE = _normal_cdf_table()


def gelu(x: Array) -> Array:
    """x Phi(x), the exact GELU (not its tanh approximation), to 3e-16 in float64."""
    table = _TABLE.astype(x.dtype, copy=False)
    inside = np.clip(x, -_BOUND, _BOUND)
    point = np.rint((inside + _BOUND) / _STEP)
    nearest = point.astype(np.intp)
    rest = inside - (point * _STEP - _BOUND)  # exact: points are multiples of 1/256
    cdf = table[-1][nearest]
    for coefficients in table[-2::-1]:
        cdf = cdf * rest + coefficients[nearest]
    return np.asarray(x * cdf)


def materialised(query: Array, key: Array, value: Array, lengths: Array) -> Array:
    """Attention with all its scores in memory, in the precision of its inputs: the oracle."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(query.shape[-1])
    real = np.arange(scores.shape[-1]) < lengths[:, None]
    scores = np.where(real[:, None, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray((weights / weights.sum(axis=-1, keepdims=True) @ value).swapaxes(1, 2))
