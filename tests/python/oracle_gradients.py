"""The derivative of attention, in the arithmetic to judge by: oracle.py backwards.

With p the probabilities, r what dropout multiplies them by, and out = (r p) v,

    dv   = (r p)^T do               dp = r (do v^T)
    ds   = p (dp - delta + dlse)    delta = sum_j p dp; the derivative of lse is p itself
    draw = ds (1 - tanh^2)          where there is a softcap
    dq   = scale draw k             dk = scale draw^T q
    dbias = ds                      dsinks = p_sink (dlse - delta)

summed over what was shared: key heads by query heads, a mask along its axes of one element, sinks
by all rows of the batch.
"""

from dataclasses import dataclass, field

import numpy as np
import oracle


@dataclass
class Gradients:
    """None where there is nothing to derive by: no additive mask, no sinks."""

    dq: np.ndarray  # (B, H, S, D)
    dk: np.ndarray  # (B, Hkv, Sk, D)
    dv: np.ndarray  # (B, Hkv, Sk, Dv)
    dbias: np.ndarray | None = None  # of the shape of the mask
    dsinks: np.ndarray | None = None  # (H,)
    # Of each, how large what its rows (dq, dk, dv) or elements are summed from is: the largest
    # term, and the same before anything inside it cancels.
    term: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    logit: float = 0  # the largest |logit| that any row sees
    empty: np.ndarray | None = None  # (B, H, S): the row may attend to nothing
    unseen: np.ndarray | None = None  # (B, Hkv, Sk): no row may attend to the key


def shared_axes(x, shape, how=np.sum):
    """x, (B, H, Sq, Sk), over the axes along which an array of this shape was broadcast to it."""
    full = (1,) * (4 - len(shape)) + tuple(shape)
    axes = tuple(a for a in range(4) if full[a] != x.shape[a])
    return how(x, axis=axes, keepdims=True).reshape(shape)


def shared_heads(x, kv_heads, how=np.sum):
    """(B, H, ...) as (B, Hkv, ...): over the query heads of each key head."""
    group = x.shape[1] // kv_heads if kv_heads else 1
    return how(x.reshape(x.shape[0], kv_heads, group, *x.shape[2:]), axis=2)


def most(x, axis, keepdims=False):
    """The largest |x|, 0 of nothing; what is not finite does not count."""
    x = np.where(np.isfinite(x), np.abs(x), 0)
    return x.max(axis, keepdims=keepdims, initial=0)


def gradients(
    query,
    key,
    value,
    dout,
    *,
    dlse=None,
    dropout_p=0.0,
    keep=None,
    layout="bhsd",
    rounded=lambda x, what: x,
    **options,
):
    """What sum(dout * out) + sum(dlse * lse) changes by, in the type `compute`.

    dout has the layout and rank of the output, dlse those of lse; options are those of oracle's
    steps(), keep and dropout_p as in its attention(). rounded(x, what) is applied to the scores,
    the probabilities, the gradients of both, and the results, which are named as here.
    """
    with np.errstate(all="ignore"):
        on = oracle.steps(query, key, value, layout=layout, rounded=rounded, **options)
        p, may, softcap = on.p, on.may, options.get("softcap")
        do = oracle.four_dims(dout, layout).astype(p.dtype)
        dlse = np.zeros(on.lse.shape) if dlse is None else np.asarray(dlse)
        dlse = dlse.reshape(*on.lse.shape, 1).astype(p.dtype)

        def dropped(x):
            return oracle.dropped(x, dropout_p, keep)

        def seen(x):  # what a row may not see is nothing, whatever came of it
            return np.where(may, x, 0)

        dp = rounded(seen(dropped(oracle.product(do, on.v.swapaxes(-1, -2)))), "dp")
        delta = (p * dp).sum(-1, keepdims=True)
        ds = rounded(seen(p * (dp - delta + dlse)), "ds")
        slope = np.broadcast_to(on.scale, may.shape)
        if softcap:  # 1 - tanh^2 = 1 / cosh^2, which keeps its digits where tanh is nearly 1
            slope = slope / np.cosh(on.raw / softcap) ** 2
        draw = seen(ds * slope)
        # Transposed, a sum runs over the rows that may see the key.
        turned = may.swapaxes(-1, -2)
        kv_heads = oracle.four_dims(key, layout).shape[1]
        dk = oracle.combine(draw.swapaxes(-1, -2), on.q, turned)
        dv = oracle.combine(dropped(p).swapaxes(-1, -2), do, turned)
        found = Gradients(
            rounded(oracle.combine(draw, on.k, may), "dq"),
            rounded(shared_heads(dk, kv_heads), "dk"),
            rounded(shared_heads(dv, kv_heads), "dv"),
            logit=most(seen(on.s), None),
            empty=~may.any(-1),
            unseen=~shared_heads(may.any(-2), kv_heads, np.any),
        )
        mask = options.get("attn_mask")
        biased = mask is not None and np.asarray(mask).dtype != bool
        if biased:
            found.dbias = rounded(shared_axes(ds, np.shape(mask)), "dbias")
        if options.get("sinks") is not None:
            of_rows = np.where(on.sink_p == 0, 0, on.sink_p * (dlse - delta))
            found.dsinks = rounded(of_rows.sum((0, 2, 3)), "dsinks")

        def sizes(dp, delta):
            """The largest terms, of these sizes of dp and delta."""
            of_s = seen(p * np.maximum(np.maximum(dp, delta), np.abs(dlse)))
            of_raw = seen(of_s * np.abs(slope))
            of_k = most(of_raw * most(on.q, -1, keepdims=True), -2)
            of_v = most(seen(dropped(p) * most(do, -1, keepdims=True)), -2)
            return {
                "dq": most(of_raw * most(on.k, -1)[:, :, None], -1, keepdims=True),
                "dk": shared_heads(of_k, kv_heads, most)[..., None],
                "dv": shared_heads(of_v, kv_heads, most)[..., None],
                "dbias": shared_axes(of_s, np.shape(mask), most) if biased else None,
                "dsinks": most(on.sink_p * np.maximum(delta, np.abs(dlse)), (0, 2, 3)),
            }

        apart = seen(dropped(oracle.product(np.abs(do), np.abs(on.v).swapaxes(-1, -2))))
        found.term = sizes(np.abs(dp), np.abs(delta))
        found.parts = sizes(apart, (p * apart).sum(-1, keepdims=True))
        return found
