"""bfloat16 in prefill, where an instruction set may multiply pairs of numbers: odd sizes, numbers
that such an instruction takes for zeros, and what hidden numbers of that kind must not do."""

import compare
import numpy as np
import oracle
import pytest

import fanano

BFLOAT16 = compare.DTYPES["bfloat16"]


def drawn(rows, keys, dim, value_dim, seed=0):
    random = np.random.default_rng(seed)
    shapes = (rows, dim), (keys, dim), (keys, value_dim)
    return [random.standard_normal(shape).astype(BFLOAT16) for shape in shapes]


def times(x, factor):
    return (x.astype(np.float64) * factor).astype(BFLOAT16)


def close(out, q, k, v):
    """Each weight may be rounded, and the result; smaller than 2^-133 there is nothing."""
    exact, terms = (oracle.attention(q, k, x).out[0, 0] for x in (v, np.abs(v)))
    assert (np.abs(out.astype(np.float64) - exact) <= 2.0**-7 * terms + 2.0**-133).all()


@pytest.mark.parametrize("dim", [1, 2, 31, 33, 64, 65, 127, 200])
@pytest.mark.parametrize("keys", [1, 2, 17, 127, 129])
def test_odd_sizes(dim, keys):
    q, k, v = drawn(70, keys, dim, dim + 1, seed=dim + keys)
    out, lse = fanano.attention(q, k, v, return_lse=True)
    compare.judge_attention(out, lse, q, k, v)
    padded = np.full((keys, 2 * dim + 3), np.nan, BFLOAT16)
    padded[:, 1 : 2 * dim + 1 : 2] = k
    assert fanano.attention(q, padded[:, 1 : 2 * dim + 1 : 2], v).tobytes() == out.tobytes()


def test_a_single_key_is_its_value():
    """The weight may be rounded; then so is what the result is divided by."""
    q, k, v = drawn(300, 300, 40, 24)
    out = fanano.attention(q, k, v, window_size=(0, 0), scale=1.7)
    assert out.tobytes() == v.tobytes()


@pytest.mark.parametrize("size", [2.0**-126, 2.0**-130, 2.0**-101])
def test_subnormal_values_count(size):
    q, k, v = drawn(80, 150, 16, 9)
    v = times(v, size)
    close(fanano.attention(q, k, v), q, k, v)


def test_subnormal_values_beside_others():
    """A column of tiny numbers, and columns in which one key, far behind, is not tiny."""
    q, k, v = drawn(80, 150, 16, 4, seed=1)
    v[:, 1] = times(v[:, 1], 2.0**-128)
    v[:, 2] = 0
    v[149, 2] = 1
    k[149] = times(q[0], -40)
    close(fanano.attention(q, k, v), q, k, v)


@pytest.mark.parametrize("hidden", [2.0**-120, 2.0**-133, 0.0, np.nan, np.inf, -3e38])
@pytest.mark.parametrize("visible", [1.0, 0.0, 2.0**-110])
def test_hidden_values_of_any_kind_do_not_show(hidden, visible):
    """Not in a single bit, where the tile's other values are ordinary, zeros or tiny."""
    q, k, v = drawn(140, 140, 24, 6, seed=2)
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


def test_values_of_later_rows_do_not_show():
    """Causal: tiny, huge and broken values that only later rows see."""
    q, k, v = drawn(200, 200, 24, 6, seed=3)
    v[:, :2] = 0
    before = fanano.attention(q, k, v, is_causal=True)
    v[100], v[101], v[102] = 2.0**-130, np.nan, np.inf
    after = fanano.attention(q, k, v, is_causal=True)
    assert after[:100].tobytes() == before[:100].tobytes()
    assert np.isnan(after[101:]).all()


@pytest.mark.parametrize("scale", [1e34, -1e36, 1e38])
def test_scores_that_only_their_scale_lifts(scale):
    """Products of these are subnormal floats."""
    q, k, v = drawn(40, 60, 3, 5, seed=4)
    q, k = times(q, 2.0**-63), times(k, 1 / (abs(scale) * 2.0**-63))
    out = fanano.attention(q, k, v, scale=scale)
    compare.judge_attention(out, None, q, k, v, scale=scale)


@pytest.mark.parametrize("after", ["zeros", "ones that weigh nothing"])
def test_subnormal_sums_outlive_the_tiles_after(after):
    """What a row has is tiny, and the next 300 keys add nothing to it: in their rows alone, too."""
    q, k, v = drawn(70, 400, 16, 3, seed=4)
    v[:] = 0 if after == "zeros" else 1
    q[:], k[:] = 1, -90
    k[0], v[0] = 90, 2.0**-128
    out = fanano.attention(q, k, v)
    assert (out == v[0]).all()
    assert (fanano.attention(q[:1], k, v) == v[0]).all()


def test_subnormal_sums_do_not_depend_on_neighbours():
    """Rows that see one tile, alone and beside rows of the same strip that see more."""
    q, k, v = drawn(40, 300, 16, 3, seed=5)
    v = times(v, 2.0**-129)
    few = fanano.attention(q[:20], k, v, is_causal=True, q_offset=107)
    more = fanano.attention(q, k, v, is_causal=True, q_offset=107)
    assert np.count_nonzero(few.astype(np.float32)) > 30
    assert more[:20].tobytes() == few.tobytes()
