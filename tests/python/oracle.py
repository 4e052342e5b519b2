"""What attention is, in arithmetic to judge by: float64, and long double for float64 inputs.

Written for the reader, not for speed. Every function works in whatever type it is given, so the
same text computed in float32 with a rounding after each step is what compare.py calls "plain".
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

FLOAT64 = np.dtype(np.float64)


@dataclass
class Steps:
    """What a problem goes through on the way; (batch, query heads, rows, keys) but for q, k, v."""

    q: np.ndarray  # (B, H, S, D)
    k: np.ndarray  # (B, H, Sk, D): each key head as often as it is used
    v: np.ndarray  # (B, H, Sk, Dv)
    scale: np.floating
    may: np.ndarray  # which keys a row may attend to
    raw: np.ndarray  # scale * q.k
    s: np.ndarray  # logits; -inf where a row may not look
    p: np.ndarray  # probabilities, before dropout
    sink_p: np.ndarray  # (B, H, S, 1): what the sink takes of each row
    lse: np.ndarray  # (B, H, S)


@dataclass
class Result:
    """Attention of one problem; every array is (batch, heads, rows, ...). What only some ask for is
    computed for them alone."""

    out: np.ndarray  # (B, H, S, Dv)
    on: Steps

    @property
    def lse(self):
        """(B, H, S), natural logarithm."""
        return self.on.lse

    @cached_property
    def empty(self):
        """(B, H, S): the row may attend to nothing."""
        return ~self.on.may.any(-1)

    @cached_property
    def seen(self):
        """(B, H, S): the largest |v| that the row sees."""
        size = np.where(np.isfinite(self.on.v), np.abs(self.on.v), 0).max(-1, initial=0)
        return self._largest(size[:, :, None])

    @cached_property
    def logit(self):
        """(B, H, S): the largest |logit| that the row sees."""
        return self._largest(self.on.s)

    @cached_property
    def terms(self):
        """(B, H, S): as above, of scale * sum |q_d k_d|: what the rounding is of."""
        with np.errstate(all="ignore"):
            sums = product(np.abs(self.on.q), np.abs(self.on.k).swapaxes(-1, -2))
            return self._largest(np.abs(self.on.scale) * sums)

    def _largest(self, x):
        return np.where(self.on.may & np.isfinite(x), np.abs(x), 0).max(-1, initial=0)


def wide(dtype):
    """The type in which inputs of this dtype are judged."""
    return np.longdouble if np.dtype(dtype) == FLOAT64 else np.float64


def four_dims(x, layout="bhsd"):
    """A 2-D to 4-D array as (batch, heads, rows, columns)."""
    x = np.asarray(x)
    if x.ndim == 2:
        return x[None, None]
    if x.ndim == 3:
        x = x[None]
    return x.swapaxes(1, 2) if layout == "bshd" else x


def as_given(x, ndim, layout="bhsd"):
    """The inverse of four_dims, for an output; lse keeps heads before rows in every layout."""
    if x.ndim == 4 and layout == "bshd" and ndim > 2:
        x = x.swapaxes(1, 2)
    return x.reshape(x.shape[4 - ndim :])


def per_batch(value, batch):
    """An integer, or one for each sequence, as an array that broadcasts over (B, H, Sq, Sk)."""
    return np.broadcast_to(np.asarray(value, np.int64), (batch,)).reshape(batch, 1, 1, 1)


def positions(batch, rows, keys, q_offset=None, q_lengths=None, kv_lengths=None):
    """Key positions of the query rows, (B, 1, rows, 1); the last row stands at the last key."""
    if q_offset is None:
        used_rows = per_batch(rows if q_lengths is None else q_lengths, batch)
        q_offset = per_batch(keys if kv_lengths is None else kv_lengths, batch) - used_rows
    else:
        q_offset = per_batch(q_offset, batch)
    return np.arange(rows).reshape(1, 1, rows, 1) + q_offset


def visible(
    shape,
    *,
    attn_mask=None,
    is_causal=False,
    window_size=None,
    q_offset=None,
    q_lengths=None,
    kv_lengths=None,
):
    """Which key each row may attend to: (B, H, Sq, Sk) of bool. Every mask joins by AND."""
    batch, _, rows, keys = shape
    p = positions(batch, rows, keys, q_offset, q_lengths, kv_lengths)
    i, j = np.arange(rows).reshape(rows, 1), np.arange(keys)
    ahead = j - p  # a difference: p + right may be no int64
    may = np.ones(shape, bool)
    if is_causal:
        may &= ahead <= 0
    left, right = window_size or (None, None)
    if left is not None and left >= 0:
        may &= ahead >= -left
    if right is not None and right >= 0:
        may &= ahead <= right
    if q_lengths is not None:
        may &= i < per_batch(q_lengths, batch)
    if kv_lengths is not None:
        may &= j < per_batch(kv_lengths, batch)
    if attn_mask is not None:
        mask = np.asarray(attn_mask)
        may &= mask if mask.dtype == bool else mask != -np.inf
    return may


def product(a, b):
    """a @ b. In float32 the products are added one by one, in order: a BLAS has an order of its
    own, another one on each machine, and what stands for "plain" must be the same on all."""
    if a.dtype != np.float32:
        return a @ b
    sums = np.zeros((*a.shape[:-1], b.shape[-1]), np.float32)
    b, term = np.ascontiguousarray(b), np.empty_like(sums)
    for i in range(a.shape[-1]):
        sums += np.multiply(a[..., i, None], b[..., i, None, :], out=term)
    return sums


def logits(raw, *, softcap=None, alibi_slopes=None, attn_mask=None, position=None, limit=None):
    """scale * q.k -> softcap -> - slope |p - j| -> + additive mask, in the type of raw.

    The finite numbers of a mask are clamped to +-limit, a quarter of the accumulator's range: they
    stay finite when they are added, and a row of the lowest number is uniform.
    """
    kind, s = raw.dtype.type, raw
    if softcap:
        s = kind(softcap) * np.tanh(s / kind(softcap))
    if alibi_slopes is not None:
        slopes = np.asarray(alibi_slopes).astype(kind)[..., None, None]
        s = s - slopes * np.abs(position - np.arange(raw.shape[-1])).astype(kind)
    if attn_mask is not None and np.asarray(attn_mask).dtype != bool:
        mask = np.asarray(attn_mask).astype(kind)
        s = s + np.where(np.isinf(mask), mask, np.clip(mask, -limit, limit))
    return s


def softmax_parts(s, sinks=None):
    """Weights e^(s - m), the sink's weight, their sum and the logarithm of the true sum, over the
    last axis."""
    m = s.max(-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        m = np.maximum(m, sinks)
    pivot = np.where(m == -np.inf, 0, m)  # nothing to see: -inf - -inf is not a number
    weights, sink = np.exp(s - pivot), np.zeros_like(m)
    if sinks is not None:
        sink = np.exp(sinks - pivot)
    total = weights.sum(-1, keepdims=True) + sink
    return weights, sink, total, (pivot + np.log(total))[..., 0]


def combine(p, v, may):
    """p v in which a key that a row may not attend to contributes nothing, whatever it holds."""
    finite = np.isfinite(v)
    out = product(p, np.where(finite, v, 0))
    for j in np.flatnonzero(~finite.all((0, 1, 3))):
        special = np.where(finite[:, :, j], 0, v[:, :, j])[:, :, None]
        shown = may[:, :, :, j, None] & ~finite[:, :, j, None]
        out = out + np.where(shown, p[:, :, :, j, None] * special, 0)
    return out


def steps(
    query,
    key,
    value,
    *,
    attn_mask=None,
    is_causal=False,
    window_size=None,
    q_offset=None,
    scale=None,
    softcap=None,
    alibi_slopes=None,
    sinks=None,
    q_lengths=None,
    kv_lengths=None,
    layout="bhsd",
    compute=None,
    rounded=lambda x, what: x,
):
    """All that comes before the values, as the contract defines it, in the type `compute`."""
    compute = compute or wide(query.dtype)
    q, k, v = (four_dims(x, layout).astype(compute) for x in (query, key, value))
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    shape = (*q.shape[:3], k.shape[2])
    may = visible(
        shape,
        attn_mask=attn_mask,
        is_causal=is_causal,
        window_size=window_size,
        q_offset=q_offset,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
    )
    scale = 1 / np.sqrt(compute(q.shape[-1])) if scale is None else compute(scale)
    if sinks is not None:
        sinks = np.asarray(sinks).astype(compute).reshape(1, -1, 1, 1)
    with np.errstate(all="ignore"):
        raw = product(q, k.swapaxes(-1, -2)) * scale
        s = logits(
            raw,
            softcap=softcap,
            alibi_slopes=alibi_slopes,
            attn_mask=attn_mask,
            position=positions(shape[0], *shape[2:], q_offset, q_lengths, kv_lengths),
            limit=np.finfo(np.float64 if query.dtype == FLOAT64 else np.float32).max / 4,
        )
        s = np.where(may, rounded(s, "scores"), -np.inf)
        weights, sink, total, lse = softmax_parts(s, sinks)
        total = np.where(total == 0, 1, total)
        p = np.where(may, rounded(weights / total, "probabilities"), 0)
        sink_p = rounded(sink / total, "probabilities")
    if sinks is not None:  # -inf is none, beside a NaN too
        sink_p = np.where(sinks == -np.inf, 0, sink_p)
    if q_lengths is not None:  # padding has no sink either
        used = np.arange(shape[2]) < per_batch(q_lengths, shape[0])[..., 0]
        lse, sink_p = np.where(used, lse, -np.inf), np.where(used[..., None], sink_p, 0)
    return Steps(q, k, v, scale, may, raw, s, p, sink_p, lse)


def dropped(x, dropout_p, keep):
    """x of what is kept times 1 / (1 - p), 0 of what is not; keep broadcasts against x."""
    if keep is None or dropout_p == 0:
        return x
    return np.where(keep, x / (1 - x.dtype.type(dropout_p)), 0 * x) if dropout_p < 1 else 0 * x


def attention(query, key, value, *, dropout_p=0.0, keep=None, rounded=lambda x, what: x, **options):
    """Attention as the contract defines it, in the type `compute`; options are those of steps().

    rounded(x, what) is applied to the scores, the probabilities and the output. keep, (B, H, Sq,
    Sk) of bool, says which probabilities dropout spares.
    """
    on = steps(query, key, value, rounded=rounded, **options)
    with np.errstate(all="ignore"):
        return Result(rounded(combine(dropped(on.p, dropout_p, keep), on.v, on.may), "output"), on)


def softmax(x, axis=-1):
    """softmax of x along axis, in the type that judges x; a row of -inf alone is zeros."""
    with np.errstate(all="ignore"):
        weights, _, total, _ = softmax_parts(
            np.moveaxis(np.asarray(x).astype(wide(x.dtype)), axis, -1)
        )
        return np.moveaxis(weights / np.where(total == 0, 1, total), -1, axis)


def lse(x, axis=-1):
    """log of the sum of e^x along axis; -inf for an empty or masked row."""
    with np.errstate(all="ignore"):
        return softmax_parts(np.moveaxis(np.asarray(x).astype(wide(x.dtype)), axis, -1))[3]
