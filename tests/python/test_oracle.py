"""The oracle and the judgement, tested themselves: by hand-made numbers, and by wrong results."""

import cases
import compare
import numpy as np
import oracle
import pytest


def by_hand(q, k, v, may, scale):
    """The definition, one number at a time."""
    out = np.zeros((q.shape[0], v.shape[1]))
    for i in range(q.shape[0]):
        weights = {
            j: np.exp(sum(float(a) * float(b) for a, b in zip(q[i], k[j], strict=True)) * scale)
            for j in range(k.shape[0])
            if may(i, j)
        }
        for j, w in weights.items():
            out[i] += w / sum(weights.values()) * v[j]
    return out


@pytest.mark.parametrize("offset", [None, 0, 2, -3])
@pytest.mark.parametrize("causal", [False, True])
def test_against_the_definition(offset, causal):
    q, k, v = cases.Case("float64", rows=5, keys=7, heads=(1, 1, 1, 2), dims=(3, 2)).arrays()
    options = {"is_causal": causal, "scale": -0.7} | (
        {} if offset is None else {"q_offset": offset}
    )
    shift = 2 if offset is None else offset
    expected = by_hand(q, k, v, lambda i, j: not causal or j <= i + shift, -0.7)
    got = oracle.attention(q, k, v, **options)
    np.testing.assert_allclose(got.out[0, 0].astype(float), expected, rtol=1e-14, atol=1e-15)


def test_lengths_stand_for_shorter_arrays():
    case = cases.Case("float32", rows=6, keys=9, heads=(2, 4, 2, 4), dims=(5, 3))
    q, k, v = case.arrays()
    padded = oracle.attention(q, k, v, q_lengths=[4, 6], kv_lengths=[9, 5], is_causal=True)
    for b, (rows, keys) in enumerate([(4, 9), (6, 5)]):
        alone = oracle.attention(q[b, :, :rows], k[b, :, :keys], v[b, :, :keys], is_causal=True)
        np.testing.assert_allclose(padded.out[b, :, :rows], alone.out[0], rtol=1e-13)
        assert (padded.out[b, :, rows:] == 0).all()
        assert (padded.lse[b, :, rows:] == -np.inf).all()


def test_heads_share_keys_in_groups():
    q, k, v = cases.Case("float32", heads=(1, 6, 2, 4), rows=3, keys=4).arrays()
    whole = oracle.attention(q, k, v).out[0]
    for h in range(6):
        np.testing.assert_array_equal(
            whole[h], oracle.attention(q[0, h], k[0, h // 3], v[0, h // 3]).out[0, 0]
        )


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 2, 5, 3)])
def test_ranks_come_back(shape, layout):
    x = np.arange(np.prod(shape)).reshape(shape)
    four = oracle.four_dims(x, layout)
    np.testing.assert_array_equal(oracle.as_given(four, x.ndim, layout), x)


def test_masks_join_by_and():
    shape = (2, 1, 4, 6)
    mask = np.arange(6) % 2 == 0
    may = oracle.visible(
        shape, is_causal=True, window_size=(2, None), kv_lengths=[6, 3], q_offset=1, attn_mask=mask
    )
    for b, _, i, j in np.ndindex(shape):
        p = i + 1
        assert may[b, 0, i, j] == (p - 2 <= j <= p and j < (6, 3)[b] and j % 2 == 0)


def test_softcap_slopes_bias_and_sinks():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 2, 3, 4)).astype(np.float32) for _ in range(3))
    bias = rng.standard_normal((3, 3)).astype(np.float32)
    got = oracle.attention(
        q, k, v, softcap=2.0, alibi_slopes=[0.5, 1.0], sinks=[0.3, -np.inf], attn_mask=bias
    )
    for h, i in np.ndindex(2, 3):
        s = np.array(
            [float(q[0, h, i].astype(float) @ k[0, h, j].astype(float)) / 2 for j in range(3)]
        )
        s = 2 * np.tanh(s / 2) - (0.5, 1.0)[h] * np.abs(i - np.arange(3)) + bias[i]
        total = np.exp(s).sum() + (np.exp(0.3) if h == 0 else 0)
        np.testing.assert_allclose(got.out[0, h, i], np.exp(s) / total @ v[0, h].astype(float))
        np.testing.assert_allclose(got.lse[0, h, i], np.log(total))


def test_a_row_of_the_lowest_number_is_uniform():
    q, k, v = cases.Case("float32", rows=2, keys=4, heads=(1, 1, 1, 2)).arrays()
    mask = np.full((2, 4), np.finfo(np.float32).min, np.float32)
    got = oracle.attention(q, k, v, attn_mask=mask)
    np.testing.assert_allclose(got.out[0, 0], np.tile(v.astype(float).mean(0), (2, 1)), rtol=1e-6)


def test_a_row_that_sees_nothing():
    q, k, v = cases.Case("float32", rows=4, keys=2, heads=(1, 1, 1, 2)).arrays()
    q[0] = np.nan
    got = oracle.attention(q, k, v, is_causal=True)  # the last row stands at the last key
    assert (got.out[0, 0, :2] == 0).all()
    assert (got.lse[0, 0, :2] == -np.inf).all()
    assert got.empty[0, 0].tolist() == [True, True, False, False]
    assert np.isfinite(got.out[0, 0, 2:]).all()


def test_only_a_visible_nan_shows():
    q, k, v = cases.Case("float32", rows=4, keys=4, heads=(1, 1, 1, 2), dims=(3, 2)).arrays()
    v[2, 1] = np.nan
    k[3, 0] = np.inf
    got = oracle.attention(q, k, v, is_causal=True).out[0, 0]
    expected = np.zeros((4, 2), bool)
    expected[2:, 1] = True
    expected[3] = True
    assert (np.isnan(got) == expected)[:3].all()
    assert np.isnan(got[3, 1])


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_plain_passes(dtype):
    for case in cases.grid(dtype)[:40]:
        q, k, v = case.arrays()
        by_hand = compare.plain(q, k, v, out_dtype=case.out_dtype, **case.options)
        out = oracle.as_given(by_hand.out, q.ndim, case.layout)
        out = out.astype(case.out_dtype or dtype)
        ratio = compare.judge_attention(
            out, None, q, k, v, what=str(case), out_dtype=case.out_dtype, **case.options
        )
        assert ratio.maximum in (None, 1)


WRONG = {
    "one row of many": lambda o: o * (1 + 0.27 * (np.arange(o.shape[-2]) == 17)[:, None]),
    "one element": lambda o: o + 0.05 * (np.arange(o.size) == o.size // 3).reshape(o.shape),
    "everything, a little": lambda o: o + np.abs(o).max() * 2.0**-6,
    "a row of zeros": lambda o: o * (np.arange(o.shape[-2]) != 60)[:, None],
    "a NaN": lambda o: np.where(np.arange(o.shape[-2])[:, None] == 3, np.nan, o),
    "an infinity": lambda o: np.where(np.arange(o.shape[-2])[:, None] == 3, np.inf, o),
}


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_results_fail(wrong, dtype):
    q, k, v = cases.Case(dtype, rows=97, keys=131).arrays()
    right = oracle.attention(q, k, v).out
    compare.judge_attention(right.astype(q.dtype), None, q, k, v)
    with pytest.raises(AssertionError):
        compare.judge_attention(WRONG[wrong](right).astype(q.dtype), None, q, k, v)


def test_a_wrong_lse_fails():
    q, k, v = cases.Case("float32", rows=97, keys=131).arrays()
    right = oracle.attention(q, k, v)
    out, lse = right.out.astype(np.float32), right.lse.astype(np.float32)
    compare.judge_attention(out, lse, q, k, v)
    for error in (np.log2(np.e) - 1) * lse, 8e-6 * (np.arange(97) == 50), np.log(2) * np.ones(97):
        with pytest.raises(AssertionError, match="lse"):
            compare.judge_attention(out, lse + error.astype(np.float32), q, k, v)


def test_the_grid_covers_every_pair():
    chosen = list(cases.pairwise(cases.FACTORS))
    names = list(cases.FACTORS)
    for n, a in enumerate(names):
        for b in names[n + 1 :]:
            met = {(c[a], c[b]) for c in chosen}
            assert met == {(x, y) for x in cases.FACTORS[a] for y in cases.FACTORS[b]}, (a, b)
