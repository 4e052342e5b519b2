"""The oracle and its gradients, against torch's and JAX's own differentiation in float64."""

import numpy as np
import oracle
import oracle_gradients
import pytest
import torch
from test_oracle_gradients import BIAS, OPTIONS, SK, SQ, problem, seen
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

NAMES = ("dq", "dk", "dv", "dbias", "dsinks")


def close(got, expected, tolerance=1e-13):
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def ours(arrays, options):
    """out, lse and gradients, in long double."""
    *qkv, dout, dlse = arrays
    on = oracle.attention(*qkv, **options)
    return on.out, on.lse, oracle_gradients.gradients(*qkv, dout, dlse=dlse, **options)


def composed(q, k, v, mask, sinks, options):
    """Attention written with torch's functions, for autograd to differentiate."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    shape = (*q.shape[:3], k.shape[2])
    known = ("is_causal", "window_size", "q_offset", "q_lengths", "kv_lengths", "attn_mask")
    may = torch.tensor(oracle.visible(shape, **{o: options[o] for o in known if o in options}))
    s = q @ k.mT * options.get("scale", q.shape[-1] ** -0.5)
    if cap := options.get("softcap"):
        s = cap * torch.tanh(s / cap)
    if (slopes := options.get("alibi_slopes")) is not None:
        offset = torch.as_tensor(options.get("q_offset", shape[3] - shape[2]))
        position = torch.arange(shape[2])[:, None] + offset.reshape(-1, 1, 1, 1)
        slopes = torch.tensor(slopes).reshape(-1, shape[1], 1, 1)
        s = s - slopes * (position - torch.arange(shape[3])).abs()
    if mask is not None:
        s = s + mask.masked_fill(torch.isinf(mask), 0)
    s = s.masked_fill(~may, -torch.inf)
    if sinks is None:  # a column of zeros, taken back where there is nothing else to see
        sinks = torch.full((shape[1],), -torch.inf, dtype=q.dtype)
    s = torch.cat([s, sinks.reshape(1, -1, 1, 1).expand(*shape[:3], 1)], -1)
    sees = torch.isfinite(s).any(-1, keepdim=True)
    if "q_lengths" in options:
        lengths = torch.tensor(options["q_lengths"]).reshape(-1, 1, 1, 1)
        sees &= torch.arange(shape[2])[:, None] < lengths
    s = torch.where(sees, s, 0.0)
    p = torch.where(sees, torch.softmax(s, -1), 0.0)[..., :-1]
    if "keep" in options:
        left = 1 - options["dropout_p"]
        p = p * torch.tensor(options["keep"]) / left if left else p * 0
    lse = torch.where(sees[..., 0], torch.logsumexp(s, -1), 0.0)
    return p @ v, lse


@pytest.mark.parametrize("name", OPTIONS)
def test_torch_differentiates_the_same(name):
    options, arrays = OPTIONS[name], problem()
    out, lse, found = ours(arrays, options)
    q, k, v, dout, dlse = map(torch.tensor, arrays)
    mask, sinks = options.get("attn_mask"), options.get("sinks")
    additive = mask is not None and mask.dtype != bool
    inputs = [q, k, v, *(torch.tensor(x) for x in ([mask] if additive else []))]
    inputs += [] if sinks is None else [torch.tensor(sinks)]
    for x in inputs:
        x.requires_grad_()
    got, got_lse = composed(
        q, k, v, inputs[3] if additive else None, inputs[-1] if sinks is not None else None, options
    )
    close(out, got.detach())
    close(np.where(np.isfinite(lse), lse, 0), got_lse.detach())
    loss = (got * dout).sum() + (got_lse * dlse).sum()
    gradients = torch.autograd.grad(loss, inputs, materialize_grads=True)
    names = NAMES[:3] + ("dbias",) * additive + ("dsinks",) * (sinks is not None)
    for which, expected in zip(names, gradients, strict=True):
        close(getattr(found, which), expected)
    assert additive == (found.dbias is not None)
    assert (sinks is not None) == (found.dsinks is not None)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": -0.8},
        {"is_causal": True, "q_offset": 0},  # torch's first row stands at the first key
        {"attn_mask": seen(2, 1, SQ, SK, rate=0.8)},
        {"attn_mask": BIAS, "scale": 0.3},
    ],
    ids=str,
)
def test_scaled_dot_product_attention(options):
    """torch's math back end."""
    arrays = problem()
    arrays[-1][...] = 0  # it gives no lse
    out, _, found = ours(arrays, options)
    *qkv, dout, _ = map(torch.tensor, arrays)
    for x in qkv:
        x.requires_grad_()
    more = {name: x for name, x in options.items() if name != "q_offset"}
    if "attn_mask" in more:
        more["attn_mask"] = torch.tensor(more["attn_mask"])
    with sdpa_kernel(SDPBackend.MATH):
        got = F.scaled_dot_product_attention(*qkv, enable_gqa=True, **more)
    close(out, got.detach())
    for which, expected in zip(NAMES, torch.autograd.grad(got, qkv, dout), strict=False):
        close(getattr(found, which), expected)


JAX = {
    "full": {},
    "scale": {"scale": -0.8},
    "causal": {"is_causal": True},
    "window": {"local_window_size": (1, 2)},
    "mask": {"mask": seen(2, 1, SQ, SK, rate=0.8)},
    "bias": {"bias": np.random.default_rng(3).standard_normal((1, 4, SQ, SK))},
    "lengths": {"query_seq_lengths": [2, 3], "key_value_seq_lengths": [5, 3]},
    "all at once": {
        "scale": 0.8, "is_causal": True, "local_window_size": (2, 2),
        "bias": np.random.default_rng(4).standard_normal((2, 1, SQ, SK)),
        "query_seq_lengths": [2, 3], "key_value_seq_lengths": [5, 3],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", JAX)
def test_jax(name):
    """jax.nn.dot_product_attention with 64 bits; its softmax is float32 all the same, so this is
    about what is meant, not about digits. Its first row stands at the first key, its rows and
    heads are the other way round, and values are as wide as keys."""
    jax = pytest.importorskip("jax", reason="compares with JAX, which is not installed")
    theirs = dict(JAX[name])
    q, k, _, _, _ = problem()
    v, dout = k[..., ::-1] * 1.5, q[..., ::-1] - 0.5
    options = {"scale": theirs.get("scale"), "is_causal": theirs.get("is_causal", False)}
    options |= {"window_size": theirs.get("local_window_size"), "q_offset": 0}
    options |= {"q_lengths": theirs.get("query_seq_lengths")}
    options |= {"kv_lengths": theirs.get("key_value_seq_lengths")}
    options |= {"attn_mask": theirs.get("mask", theirs.get("bias"))}
    with jax.enable_x64(True):
        theirs = {n: jax.numpy.asarray(x) if n in ("mask", "bias") or "lengths" in n else x
                  for n, x in theirs.items()}  # fmt: skip
        for lengths in "query_seq_lengths", "key_value_seq_lengths":
            if lengths in theirs:
                theirs[lengths] = theirs[lengths].astype("int32")
        bias = theirs.pop("bias", None)

        def attention(q, k, v, bias):
            turned = (x.swapaxes(1, 2) for x in (q, k, v))
            out = jax.nn.dot_product_attention(*turned, bias=bias, implementation="xla", **theirs)
            return out.swapaxes(1, 2)

        out, backward = jax.vjp(attention, *map(jax.numpy.asarray, (q, k, v)), bias)
        assert out.dtype == np.float64
        gradients = backward(jax.numpy.asarray(dout))
    found = oracle_gradients.gradients(q, k, v, dout, **options)
    close(oracle.attention(q, k, v, **options).out, out, 2e-6)
    for which, expected in zip(NAMES, gradients, strict=False):
        if expected is not None:
            close(getattr(found, which), expected, 4e-6)
    assert (found.dbias is None) == (bias is None)
