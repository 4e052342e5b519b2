"""Masks, windows, softcap, ALiBi and sinks, by what they mean. Combined over the whole grid they
are judged in test_attention.py."""

import compare
import numpy as np
import pytest
from cases import Case

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
algorithms = pytest.mark.parametrize("algorithm", ["flash", "safe", "online"])
kinds = pytest.mark.parametrize("kind", ["bool", *compare.DTYPES])  # of masks

ROWS, KEYS, HEADS = 150, 290, (2, 4, 2, 4)


def arrays(dtype, **changes):
    sizes = {"rows": ROWS, "keys": KEYS, "heads": HEADS, "dims": (24, 17)}
    return Case(dtype, **sizes | changes).arrays()


def run(qkv, **options):
    return fanano.attention(*qkv, return_lse=True, **options)


def same(a, b):
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def seen_at(rate, *shape):
    return np.random.default_rng(11).random(shape) < rate


def as_kind(seen, kind):
    """A mask of True where a key is seen, or of 0 there and -inf elsewhere."""
    return seen if kind == "bool" else np.where(seen, 0, -np.inf).astype(compare.DTYPES[kind])


ROW, COLUMN = np.arange(ROWS)[:, None] + KEYS - ROWS, np.arange(KEYS)  # lower right


@dtypes
@pytest.mark.parametrize(
    ("seen", "options"),
    [
        (ROW >= COLUMN, {"is_causal": True}),
        (ROW - 5 >= COLUMN, {"is_causal": True, "q_offset": KEYS - ROWS - 5}),
        (abs(ROW - COLUMN) <= 30, {"window_size": (30, 30)}),
        ((ROW - 9 <= COLUMN) & (ROW >= COLUMN), {"window_size": (9, 50), "is_causal": True}),
        (ROW + 2 >= COLUMN, {"window_size": (None, 2)}),
        (ROW - 129 <= COLUMN, {"window_size": [129, -7]}),
        (ROW == COLUMN, {"window_size": (0, 0)}),
    ],
    ids=str,
)
def test_every_mask_that_shows_the_same_is_the_same(seen, options, dtype):
    """Bit for bit: where a mask comes from does not matter."""
    qkv = arrays(dtype)
    same(run(qkv, attn_mask=seen), run(qkv, **options))
    half = seen_at(0.5, ROWS, KEYS)
    same(run(qkv, attn_mask=half & seen), run(qkv, attn_mask=half, **options))


@dtypes
def test_a_mask_that_shows_everything_changes_nothing(dtype):
    qkv = arrays(dtype)
    same(run(qkv, attn_mask=np.True_[None]), run(qkv))
    same(run(qkv, window_size=(None, None)), run(qkv))
    same(run(qkv, window_size=(2**62, 2**63 - 1)), run(qkv))
    same(run(qkv, softcap=0), run(qkv))
    same(run(qkv, sinks=-np.inf), run(qkv))


@dtypes
@algorithms
@kinds
def test_a_mask_that_shows_nothing(kind, algorithm, dtype):
    """Also where the query, the keys and the values are NaN."""
    qkv = arrays(dtype)
    for x in qkv:
        x[...] = np.nan
    hidden = as_kind(np.False_[None], kind)
    out, lse = run(qkv, attn_mask=hidden, algorithm=algorithm)
    assert (out == 0).all()
    assert (lse == -np.inf).all()
    sinks = np.array([0.3, 1e30, 1e12 + 1, -np.inf])  # two of them are no floats
    out, lse = run(qkv, attn_mask=hidden, sinks=sinks, algorithm=algorithm)
    assert (out == 0).all()
    assert (lse == sinks.astype(lse.dtype)[:, None]).all()


@dtypes
@kinds
@pytest.mark.parametrize(
    "shape", [(), (1,), (KEYS,), (ROWS, 1), (1, KEYS), (4, ROWS, KEYS), (2, 1, 1, KEYS)], ids=str
)
def test_broadcasting_is_repeating(shape, kind, dtype):
    qkv = arrays(dtype)
    mask = as_kind(seen_at(0.5, *shape), kind)
    expected = run(qkv, attn_mask=np.ascontiguousarray(np.broadcast_to(mask, (2, 4, ROWS, KEYS))))
    same(run(qkv, attn_mask=np.asarray(mask)), expected)
    same(run(qkv, attn_mask=np.broadcast_to(mask, (2, 4, ROWS, KEYS))), expected)


@dtypes
@kinds
def test_strides_of_masks(kind, dtype):
    qkv = arrays(dtype)
    mask = as_kind(seen_at(0.5, 4, ROWS, KEYS), kind)
    expected = run(qkv, attn_mask=mask)
    wide = np.zeros((4, ROWS, 2 * KEYS), mask.dtype)
    wide[..., ::2] = mask
    turned = np.ascontiguousarray(mask.transpose(2, 0, 1)).transpose(1, 2, 0)
    reversed_ = mask[:, ::-1, ::-1].copy()[:, ::-1, ::-1]
    for moved in wide[..., ::2], turned, reversed_:
        assert (moved == mask).all()
        same(run(qkv, attn_mask=moved), expected)


def test_a_mask_is_never_expanded():
    """2^20 x 2^20 elements would be a terabyte; the one that is there is read."""
    q = np.ones((1, 1, 2**20, 1), np.float16)
    mask = np.broadcast_to(np.array(False), (2**20, 2**20))
    assert (fanano.attention(q, q, q, attn_mask=mask, window_size=(0, 0)) == 0).all()


def test_true_is_any_byte_but_zero():
    qkv = arrays("float32")
    mask = seen_at(0.5, ROWS, KEYS)
    odd = np.where(mask, np.uint8(0x82), np.uint8(0)).view(bool)
    same(run(qkv, attn_mask=odd), run(qkv, attn_mask=mask))


@dtypes
@kinds
@algorithms
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
def test_what_a_mask_hides_never_shows(garbage, algorithm, kind, dtype):
    q, k, v = arrays(dtype)
    with np.errstate(over="ignore"):
        garbage = np.asarray(garbage).astype(k.dtype)
    seen = seen_at(0.5, ROWS, KEYS)
    bad = np.array([3, 128, 200, 289])
    seen[:100, bad] = False  # seen by the others, in tiles that all have in common
    mask = as_kind(seen, kind)
    options = {"attn_mask": mask, "algorithm": algorithm, "sinks": 0.5}
    before = run((q, k, v), **options)
    k[:, :, bad] = v[:, :, bad] = garbage
    after = run((q, k, v), **options)
    same([x[:, :, :100] for x in after], [x[:, :, :100] for x in before])
    if np.isnan(garbage):
        shown = seen[:, bad].any(1)
        assert (np.isnan(after[0]).all(-1) == shown).all()


@dtypes
@algorithms
@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("kind", compare.DTYPES)
def test_a_nan_or_infinity_in_an_additive_mask_shows_where_it_is(kind, broken, algorithm, dtype):
    qkv = arrays(dtype)
    mask = np.zeros((ROWS, KEYS), compare.DTYPES[kind])
    clean = run(qkv, attn_mask=mask, algorithm=algorithm)
    mask[17, 130] = mask[60, 0] = broken
    got = run(qkv, attn_mask=mask, algorithm=algorithm)
    rows = np.isin(np.arange(ROWS), (17, 60))
    assert (np.isnan(got[0]).all((0, 1, 3)) == rows).all()
    assert (np.isnan(got[1]).all((0, 1)) == rows).all()
    same([x[:, :, ~rows] for x in got], [x[:, :, ~rows] for x in clean])


@dtypes
@algorithms
@pytest.mark.parametrize("kind", compare.DTYPES)
def test_a_row_of_the_lowest_number_is_uniform(kind, algorithm, dtype):
    """As in torch; a user who writes finfo.min for -inf gets the mean, not NaN. (float16's lowest
    is near enough for the scores to show.)"""
    q, k, v = arrays(dtype)
    lowest = float(compare.ml_dtypes.finfo(compare.DTYPES[kind]).min)
    mask = np.full((ROWS, 1), lowest).astype(compare.DTYPES[kind])
    mask[1::2] = 0
    out = fanano.attention(q, k, v, attn_mask=mask, algorithm=algorithm).astype(np.float64)
    plain = fanano.attention(q, k, v, algorithm=algorithm).astype(np.float64)
    mean = np.repeat(v.astype(np.float64).mean(2), 2, 1)[:, :, None]
    tolerance = 0.02 if dtype in ("bfloat16", "float16") else 1e-5
    assert np.abs(out - plain)[:, :, 1::2].max() < tolerance
    if kind != "float16":
        assert np.abs(out - mean)[:, :, ::2].max() < tolerance


@dtypes
@algorithms
@pytest.mark.parametrize("kind", compare.DTYPES)
def test_the_largest_number_in_a_mask_leaves_one_key(kind, algorithm, dtype):
    q, k, v = arrays(dtype)
    mask = np.zeros((ROWS, KEYS), compare.DTYPES[kind])
    mask[17, 130] = mask[60, 0] = mask[149, 289] = compare.ml_dtypes.finfo(mask.dtype).max
    mask[18, 130] = np.inf  # beside it
    out, lse = run((q, k, v), attn_mask=mask, algorithm=algorithm)
    plain = run((q, k, v), attn_mask=np.zeros_like(mask), algorithm=algorithm)
    for row, key in ((17, 130), (60, 0), (149, 289)):
        value = np.repeat(v[:, :, key], 2, 1).astype(np.float64)
        assert (np.abs(out[:, :, row].astype(np.float64) - value) <= 2e-7 * np.abs(value)).all()
        assert np.isfinite(lse[:, :, row]).all()
    others = ~np.isin(np.arange(ROWS), (17, 18, 60, 149))
    same([x[:, :, others] for x in (out, lse)], [x[:, :, others] for x in plain])


@dtypes
@algorithms
def test_a_sink_is_a_key_without_a_value(algorithm, dtype):
    q, k, v = arrays(dtype)
    sinks = np.array([0.5, -3, 4, 0])
    got = run((q, k, v), sinks=sinks, algorithm=algorithm)
    mask = np.zeros((4, 1, KEYS + 1), np.float64)
    mask[..., KEYS] = sinks[:, None]
    one_more = [np.concatenate([x, np.zeros_like(x[:, :, :1])], 2) for x in (k, v)]
    expected = run((q, *one_more), attn_mask=mask, algorithm=algorithm)
    for a, b in zip(got, expected, strict=True):
        tolerance = 0.02 if dtype in ("bfloat16", "float16") else 1e-5
        np.testing.assert_allclose(a.astype(float), b.astype(float), atol=tolerance)


@dtypes
def test_slopes_are_an_additive_mask(dtype):
    qkv = arrays(dtype)
    slopes = np.array([[0.5, 0.01, 2.0, 0.0], [1, 2, 3, 4.0]])
    mask = -slopes[:, :, None, None] * np.abs(ROW - COLUMN)
    options = {"is_causal": True, "return_lse": True}
    out, lse = fanano.attention(*qkv, alibi_slopes=slopes, **options)
    compare.judge_attention(out, lse, *qkv, attn_mask=mask, is_causal=True)


@dtypes
@pytest.mark.parametrize("offset", [0, 2**23 - 100, 2**24 + 3, 2**31, 2**53, -(2**31)])
def test_distances_are_those_of_integers(offset, dtype):
    """Far from all keys the slope still tells them apart, as far as a logit can."""
    qkv = arrays(dtype, heads=(1, 1, 1, 4))
    slopes = [float(2.0 ** -max(0, np.frexp(float(abs(offset)))[1] - 20))]
    options = {"alibi_slopes": slopes, "q_offset": offset}
    compare.judge_attention(*run(qkv, **options), *qkv, **options)


@dtypes
def test_rows_that_were_cut_into_chunks(dtype):
    """Every option, bit for bit: a row does not know where its block began."""
    q, k, v = arrays(dtype)
    mask = np.where(
        seen_at(0.7, ROWS, KEYS), np.random.default_rng(1).random((ROWS, KEYS)), -np.inf
    )
    options = {"softcap": 3.0, "alibi_slopes": [0.1, 0.2, 0.3, 0.0], "sinks": [1, 2, 3, 4.0]}
    options |= {"window_size": (100, 4)}
    for start in 0, 2**24:  # the first key's position is 0, a row's may be anything
        options["q_offset"] = KEYS - ROWS + start
        if start:
            options["window_size"] = None
        whole = run((q, k, v), attn_mask=mask, **options)
        for cut in 17, 50, 64, 133:
            for rows in slice(0, cut), slice(cut, None):
                shifted = options | {"q_offset": options["q_offset"] + rows.indices(ROWS)[0]}
                part = run((q[:, :, rows], k, v), attn_mask=mask[rows], **shifted)
                same(part, [x[:, :, rows] for x in whole])


@dtypes
def test_the_batch_and_the_other_heads(dtype):
    q, k, v = arrays(dtype)
    mask, slopes = as_kind(seen_at(0.6, 2, 4, ROWS, KEYS), "float32"), seen_at(2, 2, 4) * 0.1
    slopes *= np.arange(8).reshape(2, 4)
    sinks = np.array([1, 2, -np.inf, 0])
    options = {"softcap": 3.0, "window_size": (100, None)}
    whole = run((q, k, v), attn_mask=mask, alibi_slopes=slopes, sinks=sinks, **options)
    for b in range(2):
        for h in range(4):
            at, group = np.s_[b : b + 1, h : h + 1], np.s_[b : b + 1, h // 2 : h // 2 + 1]
            of_head = {"attn_mask": mask[at], "alibi_slopes": slopes[at], "sinks": sinks[h : h + 1]}
            alone = run((q[at], k[group], v[group]), **of_head, **options)
            same(alone, [x[at] for x in whole])


@dtypes
def test_threads(dtype, threads):
    qkv = arrays(dtype)
    options = {"attn_mask": seen_at(0.3, ROWS, KEYS), "softcap": 1.0, "sinks": 0.0}
    threads(1)
    alone = run(qkv, **options)
    for n in 2, 3:
        threads(n)
        same(run(qkv, **options), alone)


@algorithms
@pytest.mark.parametrize("softcap", [1e-300, 1e-40, 1e-30, 1e-3, 1.0, 1e6, 1e30, 1e38, 1e300])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, -1e30])
def test_softcaps_of_all_sizes(scale, softcap, algorithm):
    qkv = arrays("float32")
    options = {"softcap": softcap, "scale": scale, "algorithm": algorithm}
    out, lse = run(qkv, **options)
    del options["algorithm"]
    if abs(scale) <= 1e6 and 1e-38 < softcap <= 1e38:  # else plain itself leaves float32
        compare.judge_attention(out, lse, *qkv, **options)
    assert np.isfinite(out).all()


def test_softcaps_beyond_all_logits():
    qkv = arrays("float32")
    same(run(qkv, softcap=1e300), run(qkv))
    for algorithm in "flash", "online":
        tiny, none = (
            fanano.attention(*qkv, algorithm=algorithm, **o)
            for o in ({"softcap": 1e-300}, {"scale": 0})
        )
        np.testing.assert_allclose(tiny, none, atol=1e-6)


def test_numbers_of_every_form():
    """Slopes and sinks: arrays of any floating dtype, lists, tuples, single numbers."""
    qkv = arrays("float32")
    numbers = [0.5, 0.25, 2.0, 0.125]
    expected = run(qkv, alibi_slopes=numbers, sinks=numbers)
    for dtype in compare.DTYPES.values():
        given = np.array(numbers).astype(dtype)
        same(run(qkv, alibi_slopes=given, sinks=given), expected)
        same(run(qkv, alibi_slopes=np.stack([given] * 2), sinks=given[::-1].copy()[::-1]), expected)
    same(run(qkv, alibi_slopes=tuple(numbers), sinks=tuple(numbers)), expected)
    same(run(qkv, alibi_slopes=[numbers, numbers], sinks=numbers), expected)
    same(
        run(qkv, alibi_slopes=1, sinks=np.float32(2)),
        run(qkv, alibi_slopes=[1] * 4, sinks=[2.0] * 4),
    )


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_masks_of_smaller_ranks(rank, layout):
    """A mask is (..., Sq, Sk), whatever the layout of the tensors."""
    heads = {2: (1, 1, 1, 2), 3: (1, 4, 2, 3)}[rank]
    case = Case("float32", rows=40, keys=50, heads=heads, layout=layout)
    mask = seen_at(0.5, *(() if rank == 2 else (4,)), 40, 50)
    options = {"layout": layout, "attn_mask": mask}
    compare.judge_attention(*run(case.arrays(), **options), *case.arrays(), **options)


def test_explain_names_the_options():
    qkv = arrays("float32")
    text = str(
        fanano.explain(
            *qkv, attn_mask=seen_at(1, ROWS, KEYS), window_size=(3, None), softcap=2.0,
            alibi_slopes=[1, 2, 3, 4], sinks=1.0, kv_lengths=[3, 4],
        )
    )  # fmt: skip
    assert "window, lengths, softcap, ALiBi, boolean mask, sinks" in text
    assert "additive mask" in str(fanano.explain(*qkv, attn_mask=np.zeros((1, KEYS))))


@pytest.mark.parametrize("rows", [1, 40])
def test_distances_to_the_end_of_64_bits(rows):
    q = k = v = np.ones((rows, 1))
    for offset in 2**62, 2**63 - 1, -(2**63):
        options = {"q_offset": offset, "alibi_slopes": [1e-18], "return_lse": True}
        lse = fanano.attention(q, k, v, **options)[1]
        np.testing.assert_allclose(lse, 1 + np.log(rows) - abs(offset) * 1e-18, rtol=1e-12)
