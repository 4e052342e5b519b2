"""The ends of the range: what is multiplied and summed on the way must not overflow where the
result would not."""

import compare
import numpy as np
import pytest

import fanano

ALGORITHMS = pytest.mark.parametrize("algorithm", ["flash", "safe", "online"])
DTYPE = pytest.mark.parametrize("dtype", compare.DTYPES)


def largest(dtype):
    return float({"bfloat16": 3.38e38, "float16": 65504.0}.get(dtype) or np.finfo(dtype).max)


def close(got, expected, dtype):
    got = np.asarray(got, dtype=np.float64)
    assert np.isfinite(got).all()
    scale = np.abs(expected).max()
    assert np.abs(got / scale - expected / scale).max() <= 16 * compare.eps(dtype)


@DTYPE
@ALGORITHMS
@pytest.mark.parametrize("keys", [2, 128, 300])
def test_values_near_the_largest_number(dtype, algorithm, keys):
    t = compare.DTYPES[dtype]
    value = 0.9 * largest(dtype)
    ones = np.ones((keys, 5), t)
    v = np.full((keys, 3), value).astype(t)
    exact = np.full((keys, 3), float(v[0, 0]))
    close(fanano.attention(ones, ones, v, algorithm=algorithm), exact, dtype)
    close(fanano.attention(ones, ones, v, algorithm=algorithm, is_causal=True), exact, dtype)


@DTYPE
def test_rows_that_overflow_on_the_way_leave_their_neighbours_alone(dtype):
    t = compare.DTYPES[dtype]
    rng = np.random.default_rng(5)
    q, k = rng.standard_normal((2, 40, 8)).astype(t)
    v = rng.standard_normal((40, 3)).astype(t)
    before = fanano.attention(q, k, v, is_causal=True)
    v[20:] = 0.9 * largest(dtype)
    after = fanano.attention(q, k, v, is_causal=True)
    assert np.isfinite(after.astype(np.float64)).all()
    assert before[:20].tobytes() == after[:20].tobytes()


def test_infinite_values_stay_infinite():
    ones = np.ones((4, 2), np.float32)
    v = ones.copy()
    v[2, 0] = np.inf
    out = fanano.attention(ones, ones, v)
    assert (out[:, 0] == np.inf).all()
    assert np.abs(out[:, 1] - 1).max() <= 1e-6


@DTYPE
@pytest.mark.parametrize("algorithm", ["flash", "safe", "online", "naive"])
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-300, 1e39, -1e39, 1e300, 1.7e308])
def test_any_finite_scale_of_scores_that_are_zero(dtype, algorithm, scale):
    t = compare.DTYPES[dtype]
    k = np.arange(1, 31).reshape(10, 3).astype(t)
    v = np.arange(20).reshape(10, 2).astype(t)
    out = fanano.attention(np.zeros((4, 3), t), k, v, scale=scale, algorithm=algorithm)
    close(out, np.broadcast_to(v.astype(np.float64).mean(0), (4, 2)), dtype)


@ALGORITHMS
@pytest.mark.parametrize(
    ("query", "keys", "scale"),
    [(1e-36, (1, 2), 1e36), (1e-36, (1e-3, 2e-3), 1e39), (2.5e38, (1e-38, 2e-38), 1.0),
     (1e25, (1e10, 2e10), 1e-35), (-1e-30, (1, 2), -1e30)],
)  # fmt: skip
def test_scales_that_neither_query_nor_score_could_bear_alone(algorithm, query, keys, scale):
    q = np.full((1, 1), query, np.float32)
    k = np.array(keys, np.float32)[:, None]
    v = np.array([[0], [1]], np.float32)
    difference = float(q[0, 0]) * scale * (float(k[1, 0]) - float(k[0, 0]))
    out = fanano.attention(q, k, v, scale=scale, algorithm=algorithm)
    assert out[0, 0] == pytest.approx(1 / (1 + np.exp(-difference)), rel=1e-5)


@pytest.mark.parametrize("algorithm", ["safe", "online"])
@pytest.mark.parametrize("n", [3, 300, 600])
@pytest.mark.parametrize("x", [np.finfo("f8").min, -1.5e308, 1.5e308, np.finfo("f8").max])
def test_softmax_of_equal_scores_at_the_ends(algorithm, n, x):
    p = fanano.softmax(np.full(n, x), algorithm=algorithm)
    assert np.abs(p * n - 1).max() <= 1e-14
    state = fanano.SoftmaxState().absorb(np.full(n, x))
    assert state.m == x
    assert state.lse == x  # log(n) is far below the last place


@pytest.mark.parametrize("lse", [1.5e308, -1.5e308])
def test_merging_at_the_ends(lse):
    a, b = np.full((1, 2), 1.0), np.full((1, 2), 3.0)
    out, merged = fanano.merge_states(a, np.array([lse]), b, np.array([lse]))
    assert np.abs(out - 2).max() <= 1e-15
    assert merged[0] == lse


@DTYPE
def test_the_state_holds_the_largest_score_itself(dtype):
    x = np.random.default_rng(1).standard_normal(1000).astype(compare.DTYPES[dtype])
    for piece in (x, x[:1], x[500:]):
        assert fanano.SoftmaxState().absorb(piece).m == float(piece.max())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_row_of_huge_logits_leaves_its_neighbours_alone(dtype):
    """Its exponents are rounded in another way, in the same registers as its neighbours'."""
    q, k, v = np.random.default_rng(7).standard_normal((3, 200, 24)).astype(compare.DTYPES[dtype])
    before = fanano.attention(q, k, v)
    q[50] *= np.asarray(1e25).astype(q.dtype)
    after, others = fanano.attention(q, k, v), np.arange(200) != 50
    assert before[others].tobytes() == after[others].tobytes()
    compare.judge_attention(after, None, q, k, v)


@DTYPE
def test_an_infinity_leaves_the_other_columns_alone(dtype):
    """A row with one is computed again, in smaller numbers; a tiny value would not survive that."""
    t = compare.DTYPES[dtype]
    q, k = np.random.default_rng(3).standard_normal((2, 40, 8)).astype(t)
    v = np.full((40, 3), 1e-6 if dtype == "float16" else 1e-36).astype(t)
    before = fanano.attention(q, k, v)
    v[7, 1] = np.inf
    after = fanano.attention(q, k, v)
    assert (after[:, 1] == np.inf).all()
    assert before[:, ::2].tobytes() == after[:, ::2].tobytes()


@pytest.mark.parametrize("algorithm", ["flash", "safe", "online"])
def test_small_weights_of_large_float64_values(algorithm):
    q, k = np.ones((1, 1)), np.array([[0.0], [-76.0]])
    v = np.array([[0.0], [1e300]])
    out = fanano.attention(q, k, v, scale=1, algorithm=algorithm)
    np.testing.assert_allclose(out, 1e300 * np.exp(-76.0), rtol=1e-12)


@DTYPE
@ALGORITHMS
@pytest.mark.parametrize("sink", [1e12 + 1, 1e30, -1e30])
def test_sinks_beyond_all_logits(sink, algorithm, dtype):
    q, k, v = np.random.default_rng(3).standard_normal((3, 1, 40, 8)).astype(compare.DTYPES[dtype])
    out, lse = fanano.attention(q, k, v, sinks=sink, return_lse=True, algorithm=algorithm)
    if sink > 0:
        assert (out == 0).all()
        np.testing.assert_allclose(lse, sink, rtol=1e-7)
    else:
        expected = fanano.attention(q, k, v, algorithm=algorithm).astype(float)
        np.testing.assert_allclose(out.astype(float), expected, atol=1e-6)


@ALGORITHMS
@pytest.mark.parametrize("weight", [2.0**-80, 2.0**-100, 2.0**-120])
def test_an_infinity_shows_however_little_it_weighs(algorithm, weight):
    """As in plain attention, where the weight is a number: rows that do not see it stay."""
    q, k, v = np.ones((3, 1), np.float32), np.zeros((200, 1), np.float32), np.ones((200, 2))
    v = v.astype(np.float32)
    k[150] = np.log(weight)
    options = {"scale": 1, "is_causal": True, "q_offset": 149, "algorithm": algorithm}
    before = fanano.attention(q, k, v, **options)
    v[150, 0] = np.inf
    out = fanano.attention(q, k, v, **options)
    assert out[0].tobytes() == before[0].tobytes()
    assert (out[1:, 0] == np.inf).all()
    assert out[1:, 1].tobytes() == before[1:, 1].tobytes()


def test_an_infinity_shows_where_only_a_wide_number_holds_its_weight():
    """Beyond what the ladder's float32 probabilities hold: exact attention is infinite there."""
    q, k, v = np.ones((1, 1), np.float32), np.zeros((200, 1), np.float32), np.ones((200, 1))
    k[150], v[150] = -1e4, -np.inf
    assert fanano.attention(q, k, v.astype(np.float32), scale=1) == -np.inf
    k[150] = -np.inf  # a logit of -inf weighs nothing: 0 times infinity, as in plain attention
    assert np.isnan(fanano.attention(q, k, v.astype(np.float32), scale=1))


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("order", [1, -1])
def test_an_infinity_shows_beside_larger_logits_that_come_later(rows, order):
    """What was summed before is scaled down, and must not vanish: 0 times infinity is NaN."""
    q, k, v = np.ones((rows, 1), np.float32), np.zeros((1100, 1), np.float32), np.ones((1100, 2))
    k[:500], v[5, 0] = -90, np.inf
    v = v.astype(np.float32)
    out = fanano.attention(q, k[::order], v[::order], scale=1)
    assert (out[:, 0] == np.inf).all()
    np.testing.assert_allclose(out[:, 1], 1, rtol=1e-6)
    out = fanano.attention(q, 0 * k[:10], v[:10], scale=1, sinks=[88.0])
    assert (out[:, 0] == np.inf).all()


def test_zeros_do_not_tell_what_the_neighbours_see():
    """A sum that a rescaling has made -0 would be 0 after one more tile, of which it sees none."""
    q, k, v = np.ones((40, 1), np.float32), np.zeros((300, 1), np.float32), np.zeros((300, 1))
    v[0], k[200] = -1e-45, 40  # the smallest number, and a maximum that makes it vanish
    v = v.astype(np.float32)
    among_others = fanano.attention(q, k, v, scale=1, is_causal=True, q_offset=240)
    alone = fanano.attention(q[:20], k, v, scale=1, is_causal=True, q_offset=230)
    assert (among_others == 0).all()
    assert among_others[:10].tobytes() == alone[10:].tobytes()


@ALGORITHMS
@pytest.mark.parametrize("slope", [1e30, 1e38, -1e37, 1e300])
def test_slopes_to_the_end_of_the_range(algorithm, slope):
    """The nearest key takes all, the farthest where the slope is negative; and the bits of a row
    do not depend on how far off the rows of other sequences stand."""
    q, k = np.random.default_rng(1).standard_normal((2, 2, 1, 20, 8), dtype=np.float32)
    v = np.arange(2 * 20 * 3, dtype=np.float32).reshape(2, 1, 20, 3)
    options = {"alibi_slopes": [slope], "is_causal": True, "algorithm": algorithm}
    alone = fanano.attention(q[:1], k[:1], v[:1], q_offset=0, **options)
    far = fanano.attention(q, k, v, q_offset=[0, 10**15], **options)
    expected = v[0, 0] if slope > 0 else np.broadcast_to(v[0, 0, :1], (20, 3))
    np.testing.assert_allclose(alone[0, 0], expected, rtol=2**-22)
    assert far[:1].tobytes() == alone.tobytes()


@ALGORITHMS
@pytest.mark.parametrize("softcap", [1e-30, 1e20, 2e30, 1e38])
@pytest.mark.parametrize("size", [1.0, 1e20, 1e30])
def test_softcaps_to_the_end_of_the_range(algorithm, softcap, size):
    q = np.array([[1, -1], [2, 1]], np.float32)
    k = np.array([[size, 0], [0, size], [size, size]], np.float32)
    v = np.eye(3, dtype=np.float32)
    options = {"scale": 1, "softcap": softcap}
    out, lse = fanano.attention(q, k, v, algorithm=algorithm, return_lse=True, **options)
    compare.judge_attention(out, lse, q, k, v, **options)


def test_a_softcap_beyond_all_numbers_is_none():
    q, k, v = np.random.default_rng(3).standard_normal((3, 20, 8), dtype=np.float32)
    assert fanano.attention(q, k, v, softcap=1e300).tobytes() == fanano.attention(q, k, v).tobytes()


@DTYPE
def test_a_scale_of_0_has_no_gradient_however_large_the_keys(dtype):
    """Sums of keys may overflow before they are multiplied by it."""
    t = compare.DTYPES[dtype]
    rng = np.random.default_rng(0)
    q, k, v, dout = (rng.standard_normal((n, 20)).astype(t) for n in (8, 20, 20, 8))
    k = np.where(k < 0, -largest(dtype), largest(dtype)).astype(t)
    out, lse = fanano.attention(q, k, v, scale=0.0, return_lse=True)
    dq, dk, dv, *_ = fanano.attention_backward(dout, q, k, v, out, lse, scale=0.0)
    assert not dq.any()
    assert not dk.any()
    expected = np.broadcast_to(dout.astype(np.float64).sum(0) / 20, v.shape)
    error = np.abs(dv.astype(np.float64) - expected).max()
    assert error <= compare.rows_floor(np.abs(dout.astype(np.float64)).max(), t, t)
