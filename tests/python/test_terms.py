"""Prefill where an instruction set may multiply pairs of bfloat16, and make other numbers of those
in parts: odd sizes, numbers that such an instruction takes for zeros, the largest ones, and what
hidden numbers of that kind must not do."""

import compare
import numpy as np
import oracle
import pytest

import fanano

# With as large a range as float32; and all that may be made of terms of 16 bits. Float32 is where
# rows have 66 columns or more, of q and v.
WIDE = pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
SMALL = pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])


def drawn(dtype, rows, keys, dim, value_dim, seed=0):
    random = np.random.default_rng(seed)
    shapes = (rows, dim), (keys, dim), (keys, value_dim)
    return [random.standard_normal(shape).astype(compare.DTYPES[dtype]) for shape in shapes]


def times(x, factor):
    return (x.astype(np.float64) * factor).astype(x.dtype)


def close(out, q, k, v, dtype):
    """Weights and results may be rounded; in float32 products of subnormal values as well."""
    exact, terms = (oracle.attention(q, k, x).out[0, 0] for x in (v, np.abs(v)))
    error = np.abs(out.astype(np.float64) - exact)
    relative, least = {"bfloat16": (2.0**-7, 2.0**-133), "float32": (2.0**-19, 2.0**-145)}[dtype]
    assert (error <= relative * terms + least).all()


@SMALL
@pytest.mark.parametrize("dim", [1, 2, 31, 33, 64, 65, 127, 200])
@pytest.mark.parametrize("keys", [1, 2, 17, 127, 129])
def test_odd_sizes(dim, keys, dtype):
    q, k, v = drawn(dtype, 70, keys, dim, dim + 1, seed=dim + keys)
    out, lse = fanano.attention(q, k, v, return_lse=True)
    compare.judge_attention(out, lse, q, k, v)
    padded = np.full((keys, 2 * dim + 3), np.nan, q.dtype)
    padded[:, 1 : 2 * dim + 1 : 2] = k
    assert fanano.attention(q, padded[:, 1 : 2 * dim + 1 : 2], v).tobytes() == out.tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_single_key_is_its_value(dtype):
    """The weight may be rounded; then so is what the result is divided by."""
    q, k, v = drawn(dtype, 300, 300, 40, 24)
    out = fanano.attention(q, k, v, window_size=(0, 0), scale=1.7)
    assert out.tobytes() == v.tobytes()


@WIDE
@pytest.mark.parametrize("size", [2.0**-101, 2.0**-110, 2.0**-126, 2.0**-130])
def test_subnormal_values_count(size, dtype):
    q, k, v = drawn(dtype, 80, 151, 60, 9)
    v = times(v, size)
    close(fanano.attention(q, k, v), q, k, v, dtype)
    wide = np.full((151, 20), np.nan, v.dtype)
    for columns in np.s_[1:19:2], np.s_[18:0:-2]:
        wide[:, columns] = v
        out = fanano.attention(q, k, wide[::-1, columns][::-1])
        assert out.tobytes() == fanano.attention(q, k, v).tobytes()


@pytest.mark.parametrize("keys", [1000, 20000])
def test_small_weights_of_small_values(keys):
    """Their products are far below those of the row's largest weight, which has no value."""
    q, k = np.zeros((20, 64), np.float32), np.zeros((keys, 64), np.float32)
    q[:, 0], k[0, 0] = 1, 13
    v = np.full((keys, 4), 1.3 * 2.0**-100, np.float32)
    v[0] = 0
    out = fanano.attention(q, k, v, scale=1).astype(np.float64) * 2.0**100
    weight = keys - 1 + np.exp(13.0)
    assert np.abs(out - np.float32(1.3) * (keys - 1) / weight).max() <= 6e-7


def test_large_weights_of_tiny_values():
    """A maximum that is followed late lets weights grow to 2^8, and sums of tiny values, too."""
    q, k = np.zeros((20, 64), np.float32), np.zeros((256, 64), np.float32)
    q[:, 0], k[128:, 0] = 1, 5.5
    v = np.full((256, 4), 1.3 * 2.0**-110, np.float32)
    out = fanano.attention(q, k, v, scale=1)
    assert np.abs(out.astype(np.float64) / v[0].astype(np.float64) - 1).max() <= 1.2e-6


@WIDE
def test_subnormal_values_beside_others(dtype):
    """A column of tiny numbers, and columns in which one key, far behind, is not tiny."""
    wide = dtype == "float32"
    q, k, v = drawn(dtype, 80, 150, 64 if wide else 16, 4, seed=1)
    v[:, 1] = times(v[:, 1], 2.0**-128)
    v[:, 2] = 0
    v[149, 2] = 1
    k[149] = times(q[0], -5 if wide else -40)
    close(fanano.attention(q, k, v), q, k, v, dtype)


@WIDE
@pytest.mark.parametrize("hidden", [2.0**-120, 2.0**-133, 0.0, np.nan, np.inf, -3.39e38])
@pytest.mark.parametrize("visible", [1.0, 0.0, 2.0**-110])
def test_hidden_values_of_any_kind_do_not_show(hidden, visible, dtype):
    """Not in a single bit, where the tile's other values are ordinary, zeros or tiny."""
    q, k, v = drawn(dtype, 140, 140, 64, 6, seed=2)
    v = times(v, visible)
    v[:, 3] = 0
    seen = np.tril(np.ones((140, 140), bool))
    seen[:, 77] = False
    without = v.copy()
    without[77] = 1
    v[77] = hidden
    for options in {"attn_mask": seen}, {"attn_mask": np.where(seen, 0, -np.inf), "scale": -0.3}:
        expected = fanano.attention(q, k, without, **options)
        assert fanano.attention(q, k, v, **options).tobytes() == expected.tobytes()


@WIDE
def test_values_of_later_rows_do_not_show(dtype):
    """Causal: tiny, huge and broken values that only later rows see."""
    q, k, v = drawn(dtype, 200, 200, 64, 6, seed=3)
    v[:, :2] = 0
    before = fanano.attention(q, k, v, is_causal=True)
    v[100], v[101], v[102] = 2.0**-130, np.nan, np.inf
    after = fanano.attention(q, k, v, is_causal=True)
    assert after[:100].tobytes() == before[:100].tobytes()
    assert np.isnan(after[101:]).all()


@WIDE
@pytest.mark.parametrize("scale", [1e34, -1e36, 1e38])
def test_scores_that_only_their_scale_lifts(scale, dtype):
    """Products of these are subnormal floats."""
    q, k, v = drawn(dtype, 40, 60, 3, 5, seed=4)
    q, k = times(q, 2.0**-63), times(k, 1 / (abs(scale) * 2.0**-63))
    out = fanano.attention(q, k, v, scale=scale)
    compare.judge_attention(out, None, q, k, v, scale=scale)


@WIDE
@pytest.mark.parametrize("after", ["zeros", "ones that weigh nothing"])
def test_subnormal_sums_outlive_the_tiles_after(after, dtype):
    """What a row has is tiny, and the next 300 keys add nothing to it: in their rows alone, too."""
    q, k, v = drawn(dtype, 70, 400, 64, 3, seed=4)
    v[:] = 0 if after == "zeros" else 1
    q[:], k[:] = 1, -30
    k[0], v[0] = 30, 2.0**-128
    for out in fanano.attention(q, k, v), fanano.attention(q[:1], k, v):
        assert np.abs(out.astype(np.float64) * 2.0**128 - 1).max() <= 2.0**-20


@WIDE
def test_subnormal_sums_do_not_depend_on_neighbours(dtype):
    """Rows that see one tile, alone and beside rows of the same strip that see more."""
    q, k, v = drawn(dtype, 40, 300, 64, 3, seed=5)
    v = times(v, 2.0**-129)
    few = fanano.attention(q[:20], k, v, is_causal=True, q_offset=107)
    more = fanano.attention(q, k, v, is_causal=True, q_offset=107)
    assert np.count_nonzero(few.astype(np.float32)) > 30
    assert more[:20].tobytes() == few.tobytes()


@WIDE
@pytest.mark.parametrize("scale", [0.12, -0.12])
@pytest.mark.parametrize("size", [-100, -60, -47, 47, 57, 60, 100])
def test_scores_do_not_tell_how_large_their_factors_are(size, scale, dtype):
    """By powers of two, all of them or a few; in bits, but where floats have a way of their own."""
    q, k, v = drawn(dtype, 70, 150, 65, 8, seed=6)
    expected = fanano.attention(q, k, v, scale=scale, return_lse=True)
    large = times(q, 2.0**size), times(k, 2.0**-size)
    got = fanano.attention(*large, v, scale=scale, return_lse=True)
    compare.judge_attention(*got, *large, v, scale=scale)
    if dtype == "bfloat16" or abs(size) < 50:
        assert [x.tobytes() for x in got] == [x.tobytes() for x in expected]
    some = q.copy(), k.copy()
    some[0][20:30], some[1][100:] = large[0][20:30], large[1][100:]
    options = {"is_causal": True, "q_offset": 99 - 29, "scale": scale}
    out = fanano.attention(*some, v, **options)
    alone = fanano.attention(q, k, v, **options)
    assert out[:20].tobytes() == alone[:20].tobytes()
    compare.judge_attention(out, None, *some, v, **options)


@WIDE
@pytest.mark.parametrize("sizes", [(60, 60), (-70, -70), (120, -52), (-100, -20)])
def test_scores_far_from_1(sizes, dtype):
    """Of huge ones a row sees the largest alone; tiny ones are all the same."""
    q, k, v = drawn(dtype, 70, 150, 65, 8, seed=7)
    q, k = times(q, 2.0 ** sizes[0]), times(k, 2.0 ** sizes[1])
    compare.judge_attention(fanano.attention(q, k, v), None, q, k, v)


@WIDE
def test_scores_below_the_range(dtype):
    """A key that weighs nothing, as if it were hidden."""
    q, k, v = drawn(dtype, 70, 150, 65, 8, seed=11)
    q[:, 0], k[:, 0] = 2.0**100, 0
    seen = np.ones((70, 150), bool)
    seen[:, 5] = False
    without = fanano.attention(q, k, v, attn_mask=seen)
    k[5] = times(k[5], 2.0**90)
    k[5, 0] = -(2.0**100)
    assert fanano.attention(q, k, v).tobytes() == without.tobytes()


def test_rows_of_wide_range():
    """What counts of a huge row may be small, and of an infinite key's partner, tiny."""
    q, k, v = drawn("float32", 70, 150, 64, 8, seed=12)
    q[:, 0], q[:, 1] = 2.0**60, times(q[:, 1], 2.0**-40)
    k[:, 0], k[:, 1] = 0, times(k[:, 1], 2.0**42)
    compare.judge_attention(fanano.attention(q, k, v), None, q, k, v)
    for small in 1e-40, 2.0**-60:
        q[:, 1], k[:, 1] = small, 0
        k[0, 1] = -np.inf
        compare.judge_attention(fanano.attention(q, k, v), None, q, k[1:], v[1:])


@SMALL
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_and_keys_that_are_not_finite(broken, dtype):
    """Rows that meet one are NaN, or do as if the key were hidden; the others stay as they were."""
    q, k, v = drawn(dtype, 70, 150, 65, 8, seed=8)
    expected = fanano.attention(q, k, v, is_causal=True, q_offset=0)
    seen = np.tril(np.ones((70, 150), bool))
    seen[:, 60] = False
    without = fanano.attention(q, k, v, attn_mask=seen)
    q[50, 3], k[60, 7] = broken, broken
    out = fanano.attention(q, k, v, is_causal=True, q_offset=0)
    others = np.arange(60) != 50
    assert out[:60][others].tobytes() == expected[:60][others].tobytes()
    assert np.isnan(out[50].astype(np.float64)).all()
    for row in range(60, 70):
        if float(q[row, 7]) * broken == -np.inf:
            assert out[row].tobytes() == without[row].tobytes()
        else:
            assert np.isnan(out[row].astype(np.float64)).all()


@pytest.mark.parametrize("bits", [0x7F800001, 0xFFBFFFFF, 0x7FFFFFFF, 0x7FC00000])
@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_every_nan_of_float32_is_one(bits, where):
    """Those whose upper half is an infinity's, or overflows when it is rounded."""
    arrays = drawn("float32", 70, 150, 64, 8, seed=9)
    arrays[["query", "key", "value"].index(where)].view(np.uint32)[5, 3] = bits
    out = np.isnan(fanano.attention(*arrays))
    expected = np.zeros((70, 8), bool)
    expected[{"query": np.s_[5], "key": np.s_[:], "value": np.s_[:, 3]}[where]] = True
    assert (out == expected).all()


@pytest.mark.parametrize("size", [3.4e38, 3.3961776e38, 3.3895314e38, 2.0**127])
def test_values_of_float32_that_round_to_infinity(size):
    q, k, v = drawn("float32", 70, 150, 64, 8, seed=10)
    v[:] = np.where(np.arange(8) % 2, -size, size)
    v[:, 5] = 1
    out = fanano.attention(q, k, v)
    assert np.abs(out.astype(np.float64) / v[0].astype(np.float64) - 1).max() <= 1e-6
