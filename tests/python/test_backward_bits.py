"""Gradients bit for bit: what they are a function of. What must never reach them is in
test_backward_hidden.py."""

import ctypes
import platform

import compare
import numpy as np
import pytest
from cases import Case
from guarded import between_pages

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
ROWS, KEYS = 150, 290


def problem(dtype, **changes):
    """query, key, value, dout, dlse"""
    sizes = {"rows": ROWS, "keys": KEYS, "heads": (2, 4, 2, 4), "dims": (40, 33)}
    case = Case(dtype, **sizes | {"data": "growing"} | changes)
    return (*case.arrays(), *case.upstream())


def run(arrays, **options):
    """dq, dk, dv, dbias, dsinks"""
    q, k, v, dout, dlse = arrays
    out, lse = fanano.attention(q, k, v, return_lse=True, **options)
    mask = options.get("attn_mask")
    grad_mask = mask is not None and mask.dtype != bool
    return fanano.attention_backward(
        dout, q, k, v, out, lse, dlse=dlse, grad_mask=grad_mask, **options
    )


def same(a, b):
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.shape == y.shape
            assert x.tobytes() == y.tobytes()


def seen_at(rate, *shape):
    return np.random.default_rng(11).random(shape) < rate


def bias(*shape, dtype=np.float32):
    """An additive mask that hides a third."""
    numbers = np.random.default_rng(3).standard_normal(shape)
    return np.where(seen_at(0.7, *shape), numbers, -np.inf).astype(dtype)


EVERYTHING = {
    "attn_mask": bias(4, ROWS, KEYS), "is_causal": True, "window_size": (200, None),
    "softcap": 3.0, "alibi_slopes": [0.1, 0.2, 0.3, 0.0], "sinks": [1, -np.inf, 3, 0.0],
    "q_lengths": [ROWS, 120], "kv_lengths": [270, KEYS],
}  # fmt: skip


@dtypes
@pytest.mark.parametrize("options", [{"is_causal": True}, EVERYTHING], ids=["causal", "all"])
def test_threads(dtype, options, threads):
    arrays = problem(dtype)
    threads(1)
    alone = run(arrays, **options)
    for n in 1, 2, 3, 4:
        threads(n)
        same(run(arrays, **options), alone)


@pytest.mark.parametrize("heads", [(1, 2, 1, 4), (1, 8, 8, 4), (1, 20, 1, 4)], ids=str)
@dtypes
def test_sums_that_are_split_over_the_threads(dtype, heads, threads):
    """More passes than sums, one head for each, and more heads than sums."""
    rows = 4500 if heads[1] == 2 else 60
    arrays = problem(dtype, rows=rows, keys=200, heads=heads, dims=(16, 8))
    threads(1)
    alone = run(arrays, is_causal=True, q_offset=0)
    for n in 2, 3:
        threads(n)
        same(run(arrays, is_causal=True, q_offset=0), alone)


@dtypes
def test_the_batch_and_the_other_heads(dtype):
    arrays = problem(dtype)
    mask = bias(2, 4, ROWS, KEYS)
    whole = run(arrays, attn_mask=mask, is_causal=True)
    for b in range(2):
        one = np.s_[b : b + 1]
        alone = run([x[one] for x in arrays], attn_mask=mask[one], is_causal=True)
        same(alone[:4], [x[one] for x in whole[:4]])
        for g in range(2):
            h = np.s_[one, 2 * g : 2 * g + 2]
            group = [arrays[0][h], *(x[one, g : g + 1] for x in arrays[1:3])]
            alone = run([*group, *(x[h] for x in arrays[3:])], attn_mask=mask[h], is_causal=True)
            of_group = whole.dq[h], whole.dk[one, g : g + 1], whole.dv[one, g : g + 1]
            same(alone[:4], [*of_group, whole.dbias[h]])


@dtypes
def test_padding(dtype):
    """Its length and what stands in it, in dout and out and lse as well."""
    q, k, v, dout, dlse = arrays = problem(dtype)
    options = {"q_lengths": [ROWS, 60], "kv_lengths": [KEYS, 201], "is_causal": True}
    whole = run(arrays, **options)
    short = [np.s_[1:, :, :60], *[np.s_[1:, :, :201]] * 2, *[np.s_[1:, :, :60]] * 2]
    alone = run([x[part] for x, part in zip(arrays, short, strict=True)], is_causal=True)
    same(alone[:3], [x[part] for x, part in zip(whole[:3], short, strict=False)])
    assert (whole.dq[1, :, 60:] == 0).all()
    assert (whole.dk[1, :, 201:] == 0).all()
    assert (whole.dv[1, :, 201:] == 0).all()
    out, lse = fanano.attention(q, k, v, return_lse=True, **options)
    for garbage in np.nan, np.inf, 1e4:
        for x in q, dout, dlse, out, lse:
            x[1, :, 60:] = garbage
        k[1, :, 201:] = v[1, :, 201:] = garbage
        same(fanano.attention_backward(dout, q, k, v, out, lse, dlse=dlse, **options), whole)


@pytest.mark.parametrize("size", [-80, 40])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("dims", [(16, 8), (64, 24)])
def test_gradients_are_proportional_to_dout(size, dtype, dims):
    """By a power of two, in every bit: none of what is small is lost."""
    q, k, v, dout, dlse = problem(dtype, dims=dims)
    factor = np.asarray(2.0**size).astype(q.dtype)
    whole = run((q, k, v, dout, dlse), is_causal=True, q_offset=100)
    scaled = run((q, k, v, dout * factor, dlse * 2.0**size), is_causal=True, q_offset=100)
    for x, y in zip(whole[:3], scaled[:3], strict=True):
        assert (x * factor).tobytes() == y.tobytes()


@pytest.mark.parametrize("dims", [(16, 8), (64, 24)])
def test_products_of_tiny_dout_and_large_values(dims):
    """What dP is made of is below what tile registers take for zeros; dP is not."""
    q, k, v, dout, dlse = problem("float32", dims=dims)
    whole = run((q, k, v, dout, dlse))
    tiny, large = np.float32(2.0**-100), np.float32(2.0**50)
    scaled = run((q, k, v * large, dout * tiny, dlse * 2.0**-50))
    for x, y in zip(whole[:2], scaled[:2], strict=True):
        assert (x * np.float32(2.0**-50)).tobytes() == y.tobytes()


@dtypes
def test_every_mask_that_shows_the_same_is_the_same(dtype):
    arrays = problem(dtype)
    row, key = np.arange(ROWS)[:, None] + KEYS - ROWS, np.arange(KEYS)
    for seen, options in (
        (row >= key, {"is_causal": True}),
        (abs(row - key) <= 30, {"window_size": (30, 30)}),
    ):
        same(run(arrays, attn_mask=seen), run(arrays, **options))
    same(run(arrays, attn_mask=np.True_[None]), run(arrays))


@pytest.mark.parametrize("shape", [(), (KEYS,), (ROWS, 1), (4, ROWS, KEYS), (2, 1, 1, KEYS)])
@pytest.mark.parametrize("kind", compare.DTYPES)
def test_a_broadcast_mask_has_the_sum_of_the_gradients(shape, kind):
    arrays = problem("float32", data="normal")
    mask = bias(*shape, dtype=compare.DTYPES[kind])
    mask[np.isinf(mask)] = 0.25
    got = run(arrays, attn_mask=np.asarray(mask))
    assert got.dbias.dtype == mask.dtype
    each = run(arrays, attn_mask=np.broadcast_to(mask, (2, 4, ROWS, KEYS)).astype(np.float32))
    full = (1,) * (4 - len(shape)) + shape
    axes = tuple(a for a in range(4) if full[a] != each.dbias.shape[a])
    expected = each.dbias.astype(np.float64).sum(axes, keepdims=True).reshape(shape)
    size = np.abs(each.dbias).astype(np.float64).sum(axes).max()
    error = np.abs(got.dbias.astype(np.float64) - expected).max()
    assert error <= 1e-6 * size + compare.ulp(np.abs(expected).max(), mask.dtype)
    same(got[:3], each[:3])


@dtypes
@pytest.mark.parametrize("sizes", [{}, {"keys": 272, "dims": (64, 32)}], ids=["odd", "whole"])
@pytest.mark.parametrize("strides", ["odd rows", "negative", "columns"])
def test_strides(dtype, strides, sizes):
    """Whole: what kernels may read where it stands."""

    def moved(x):
        if strides == "odd rows":
            room = np.full((*x.shape[:-1], x.shape[-1] + 3), 9, x.dtype)[..., 1:-2]
        elif strides == "negative":
            room = np.full_like(x, 9)[(slice(None, None, -1),) * x.ndim]
        else:
            room = np.full((*x.shape, 3), 9, x.dtype)[..., 1]
        room[...] = x
        return room

    arrays, mask = problem(dtype, **sizes), bias(4, ROWS, sizes.get("keys", KEYS))
    out, lse = fanano.attention(*arrays[:3], return_lse=True, attn_mask=mask)
    whole = run(arrays, attn_mask=mask)
    q, k, v, dout, dlse, out, lse, mask = map(moved, (*arrays, out, lse, mask))
    options = {"dlse": dlse, "grad_mask": True, "attn_mask": mask}
    same(fanano.attention_backward(dout, q, k, v, out, lse, **options), whole)


@dtypes
def test_layout_and_rank(dtype):
    arrays = problem(dtype)
    whole = run(arrays, is_causal=True)
    swapped = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays[:4]]
    got = run([*swapped, arrays[4]], layout="bshd", is_causal=True)
    same([x.swapaxes(1, 2) for x in got[:3]], whole[:3])
    same(run([x[1] for x in arrays], is_causal=True)[:3], [x[1] for x in whole[:3]])
    arrays = problem(dtype, heads=(2, 2, 2, 4))
    whole = run(arrays, is_causal=True)
    same(run([x[1, 1] for x in arrays], is_causal=True)[:3], [x[1, 1] for x in whole[:3]])


@dtypes
def test_inputs_are_read_and_nothing_beside_them(dtype):
    for at in "start", "end":
        for rows, keys, dim, value_dim in (1, 1, 1, 1), (17, 129, 7, 5), (65, 3, 33, 65):
            arrays = problem(dtype, rows=rows, keys=keys, dims=(dim, value_dim))
            mask = bias(1, rows, keys)
            expected = run(arrays, attn_mask=mask)
            out, lse = fanano.attention(*arrays[:3], return_lse=True, attn_mask=mask)
            given = [between_pages(x, at) for x in (*arrays, out, lse, mask)]
            before = [x.tobytes() for x in given]
            for x in given:
                x.flags.writeable = False
            q, k, v, dout, dlse, out, lse, mask = given
            options = {"dlse": dlse, "grad_mask": True, "attn_mask": mask}
            same(fanano.attention_backward(dout, q, k, v, out, lse, **options), expected)
            assert [x.tobytes() for x in given] == before


@dtypes
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "rows", "keys", "value_dim"),
    [
        (0, 2, 2, 3, 3, 4),
        (2, 0, 0, 3, 3, 4),
        (2, 0, 2, 3, 3, 4),
        (2, 2, 1, 0, 3, 4),
        (2, 2, 1, 3, 0, 4),
        (0, 0, 0, 0, 0, 0),
    ],
)
def test_nothing_at_all(batch, heads, kv_heads, rows, keys, value_dim, dtype):
    dtype = compare.DTYPES[dtype]
    q = np.ones((batch, heads, rows, 8), dtype)
    k = np.ones((batch, kv_heads, keys, 8), dtype)
    v = np.ones((batch, kv_heads, keys, value_dim), dtype)
    options = {"attn_mask": np.ones((1, 1), np.float32), "sinks": np.ones(heads)}
    out, lse = fanano.attention(q, k, v, return_lse=True, **options)
    dout = np.ones_like(out)
    got = fanano.attention_backward(dout, q, k, v, out, lse, grad_mask=True, **options)
    likes = q, k, v, options["attn_mask"], np.ones(heads, lse.dtype)
    for x, like in zip(got, likes, strict=True):
        assert x.shape == like.shape
        assert x.dtype == like.dtype
        assert (x == 0).all()


def test_without_values_lse_alone_has_a_gradient():
    q, k = np.random.default_rng(0).standard_normal((2, 1, 2, 20, 8))
    v = np.ones((1, 2, 20, 0))
    dlse = np.ones((1, 2, 20))
    got = run((q, k, v, v, dlse))
    weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(8))
    p = weights / weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(got.dq, p @ k / np.sqrt(8), rtol=1e-12)


# ---- the caller's floating-point modes -----------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the modes of x86-64")
@dtypes
@pytest.mark.parametrize("mode", [0x400, 0xC00])  # downward, toward zero
def test_rounding_of_the_caller(dtype, mode, threads):
    libm = ctypes.CDLL("libm.so.6")
    arrays = problem(dtype)
    options = {"softcap": 2.0, "sinks": 1.0, "attn_mask": bias(ROWS, KEYS)}
    expected = run(arrays, **options)
    for n in 1, 2:
        threads(n)
        try:
            assert libm.fesetround(mode) == 0
            got = run(arrays, **options)
            after = libm.fegetround()
        finally:
            libm.fesetround(0)
        assert after == mode
        same(got, expected)
