"""Decode, the kernel class of sequences with at most 16 queries: by the judgement of compare.py,
and bit for bit what a row gets in every other company (rule 3.7 of the contract)."""

import itertools

import compare
import numpy as np
import pytest
from cases import Case

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)

# Around the tile of 64 keys and the chunk of 512, at which the sums are cut.
KEYS = (1, 63, 65, 513, 1100)
OPTIONS = {
    "plain": {},
    "window": {"window": (700, 40)},
    "bool": {"mask": "bool (B, 1, Sq, Sk)"},
    "additive": {"mask": "float16 (B, H, Sq, Sk)", "strides": "columns"},
    "everything": {
        "mask": "float32 (Sq, Sk)", "softcap": 40.0, "slopes": "batch", "sinks": True,
        "lengths": "both", "where": "per batch",
    },
}  # fmt: skip


def run(arrays, **options):
    return fanano.attention(*arrays, return_lse=True, **options)


def is_split(arrays, **options):
    return "splits" in str(fanano.explain(*arrays, **options))


def same(a, b):
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@dtypes
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dims", [(64, 64), (33, 5), (128, 80)], ids=str)
def test_as_close_as_plain(dtype, options, dims):
    rows = itertools.cycle([1, 2, 3, 5, 16])
    heads = itertools.cycle([(2, 4, 4, 4), (1, 6, 1, 4), (2, 12, 4, 4)])
    data = itertools.cycle(["growing", "partly hidden", "normal", "large values"])
    for keys in KEYS:
        more = {"where": "causal"} | OPTIONS[options]
        case = Case(
            dtype, rows=next(rows), keys=keys, heads=next(heads), dims=dims, data=next(data), **more
        )
        judgement = compare.Judgement(str(case))
        for draw in range(min(case.draws, 4)):
            arrays = case.arrays(draw)
            judgement.add(*run(arrays, **case.options), *arrays, **case.options)
        judgement.verdict()


@dtypes
@pytest.mark.parametrize("keys", [900, 1600])
@pytest.mark.parametrize("options", OPTIONS)
def test_splits_of_the_keys_do_not_show(dtype, options, keys, threads):
    """One team alone: two threads and more make its chunks apart, one makes them in turn."""
    more = {"where": "causal"} | OPTIONS[options]
    case = Case(dtype, rows=3, keys=keys, heads=(1, 8, 1, 4), dims=(80, 48), **more)
    results = []
    for n in 1, 2, 5:
        threads(n)
        assert is_split(case.arrays(), **case.options) == (n > 1)
        results.append(run(case.arrays(), **case.options))
    same(results[1], results[0])
    same(results[2], results[0])


@dtypes
@pytest.mark.parametrize("queries", [1, 3, 16])
def test_more_rows_than_a_team_has(dtype, queries):
    """150 query heads share one key head, and each gets what it gets alone."""
    q, k, v = Case(dtype, rows=queries, keys=130, heads=(1, 150, 1, 4), dims=(24, 17)).arrays()
    out, lse = run((q, k, v), is_causal=True)
    for h in 0, 1, 63, 64, 149:
        one = np.s_[:, h : h + 1]
        same(run((q[one], k, v), is_causal=True), (out[one], lse[one]))


@dtypes
@pytest.mark.parametrize("heads", [(5, 6, 2, 4), (5, 22, 2, 4)], ids=["a team", "three teams"])
def test_each_sequence_has_its_own_class(dtype, heads):
    """By the queries that it uses: what stands beside it, and how it is padded, does not matter."""
    lengths = [40, 16, 1, 0, 17]
    case = Case(dtype, rows=40, keys=600, heads=heads, dims=(64, 33), data="growing")
    q, k, v = case.arrays()
    out, lse = run((q, k, v), is_causal=True, q_lengths=lengths)
    for b, n in enumerate(lengths):
        one, padding = np.s_[b : b + 1, :, :n], np.s_[b, :, n:]
        same(run((q[one], k[b : b + 1], v[b : b + 1]), is_causal=True), (out[one], lse[one]))
        assert (out[padding] == 0).all()
        assert (lse[padding] == -np.inf).all()


@dtypes
def test_rows_by_themselves_see_the_same_chunks(dtype):
    """Windows that begin in different chunks and tiles: a row alone visits fewer of them."""
    case = Case(dtype, rows=16, keys=1300, heads=(2, 4, 2, 4), dims=(40, 33), data="growing")
    q, k, v = case.arrays()
    options = {"window_size": (500, 20), "sinks": [0.5, -1.0, 3.0, 0.0]}
    out, lse = run((q, k, v), q_offset=[505, 1010], **options)
    for i in 0, 6, 7, 15:
        one = np.s_[:, :, i : i + 1]
        alone = run((q[one], k, v), q_offset=[505 + i, 1010 + i], **options)
        same(alone, (out[one], lse[one]))


@dtypes
@pytest.mark.parametrize("strides", ["odd rows", "negative", "columns"])
def test_strides(dtype, strides):
    """Columns apart are repacked, rows of any stride are read where they are: the same bits."""
    case = Case(dtype, rows=4, keys=700, heads=(2, 4, 2, 4), dims=(64, 32), where="causal")
    moved = Case(dtype, rows=4, keys=700, heads=(2, 4, 2, 4), dims=(64, 32), strides=strides)
    same(
        run([moved._placed(x) for x in case.arrays()], is_causal=True),
        run(case.arrays(), is_causal=True),
    )


@dtypes
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("kind", ["bool", "float32"])
def test_what_a_mask_hides_never_shows(dtype, garbage, kind, threads):
    """In a tile that one row of the team sees whole, and another in part."""
    threads(2)
    q, k, v = Case(dtype, rows=4, keys=1100, heads=(1, 4, 1, 4), dims=(72, 80)).arrays()
    assert is_split((q, k, v))
    mask = np.random.default_rng(0).random((4, 4, 1100)) < 0.7
    mask[:, :, 530:540] = False
    mask[1, 2, :] = True
    mask[0] = False
    given = mask if kind == "bool" else np.where(mask, 0, -np.inf).astype(kind)
    clean = run((q, k, v), attn_mask=given)
    with np.errstate(over="ignore"):
        v[:, :, 530:540] = np.asarray(garbage).astype(k.dtype)
    k[:, :, 530:540] = np.nan
    out, lse = run((q, k, v), attn_mask=given)
    others = np.ones((1, 4, 4), bool)
    others[0, 1, 2] = False
    same((out[others], lse[others]), (clean[0][others], clean[1][others]))
    assert (out[:, 0] == 0).all()
    compare.judge_attention(out, lse, q, k, v, attn_mask=given)


@dtypes
@pytest.mark.parametrize("at", [0, 63, 511, 512, 1099])
def test_a_visible_nan_shows_in_exactly_its_rows(dtype, at, threads):
    q, k, v = Case(dtype, rows=4, keys=1100, heads=(1, 4, 2, 4), dims=(72, 80)).arrays()
    clean = run((q, k, v), is_causal=True)[0]
    v[0, 1, at, 3] = np.nan
    for n in 1, 3:
        threads(n)
        assert is_split((q, k, v)) == (n > 1)
        out = run((q, k, v), is_causal=True)[0]
        rows = np.arange(4) + 1096 >= at
        expected = np.zeros(out.shape, bool)
        expected[:, 2:, rows, 3] = True
        assert (np.isnan(out) == expected).all()
        assert out[~expected].tobytes() == clean[~expected].tobytes()


@dtypes
def test_sums_that_overflow_where_the_result_does_not(dtype, threads):
    """In a chunk, and only where chunks meet; the neighbours keep their bits."""
    large = {"float64": 1.7e308, "float32": 3.3e38, "bfloat16": 3.3e38, "float16": 65000.0}[dtype]
    q, k, v = Case(dtype, rows=2, keys=1300, heads=(1, 8, 1, 4), dims=(56, 64)).arrays()
    clean = run((q, k, v), is_causal=True, window_size=(1298, 0))[0]
    k[:] = 0
    for keys in slice(None), slice(0, 1300, 50), slice(510, 514):
        big = v.copy()
        big[:, :, keys, 5] = large
        for n in 1, 2:
            threads(n)
            assert is_split((q, k, big)) == (n > 1)
            out, lse = run((q, k, big))
            compare.judge_attention(out, lse, q, k, big)
    # Row 0 does not see the last key.
    q, k, v = Case(dtype, rows=2, keys=1300, heads=(1, 8, 1, 4), dims=(56, 64)).arrays()
    v[:, :, 1299] = large
    out = run((q, k, v), is_causal=True, window_size=(1298, 0))[0]
    assert out[:, :, 0].tobytes() == clean[:, :, 0].tobytes()
