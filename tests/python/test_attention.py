"""Attention of dense inputs, by the judgement of compare.py: every algorithm, dtype and option."""

import functools

import cases
import compare
import numpy as np
import oracle
import pytest
from cases import Case

import fanano

GRID = {dtype: [*cases.grid(dtype), *cases.large(dtype)] for dtype in compare.DTYPES}


def run(case, draw=0, **more):
    q, k, v = case.arrays(draw)
    return fanano.attention(
        q, k, v, algorithm=case.algorithm, out_dtype=case.out_dtype, **case.options, **more
    )


@functools.cache
def ratio(case):
    """Runs and judges one problem: its errors over those of plain attention."""
    judgement = compare.Judgement(str(case))
    for draw in range(case.draws):
        out, lse = run(case, draw, return_lse=True)
        judgement.add(out, lse, *case.arrays(draw), out_dtype=case.out_dtype, **case.options)
    return judgement.verdict()


@pytest.mark.parametrize("case", [c for grid in GRID.values() for c in grid], ids=str)
def test_each_problem(case):
    ratio(case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_as_close_as_plain_on_average(dtype):
    """float64 is judged absolutely, problem by problem."""
    ratios = [ratio(case) for case in GRID[dtype]]
    limit = 1.05 if dtype == "float32" else 1.0
    assert compare.geometric_mean(r.maximum for r in ratios) <= limit
    assert compare.geometric_mean(r.mean for r in ratios) <= limit


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_lse_changes_nothing_else(dtype):
    case = Case(dtype, rows=33, keys=65, where="causal")
    with_lse, _ = run(case, return_lse=True)
    assert run(case).tobytes() == with_lse.tobytes()


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("algorithm", ["flash", "naive"])
def test_out_is_written_where_it_was_asked_for(layout, rank, algorithm):
    heads = {2: (1, 1, 1, 2), 3: (1, 4, 2, 3), 4: (2, 4, 2, 4)}[rank]
    case = Case("float32", rows=19, keys=33, heads=heads, layout=layout, algorithm=algorithm)
    fresh = run(case)
    for room in (
        np.full_like(fresh, np.nan),
        np.full((*fresh.shape, 2), np.nan, np.float32)[..., 0],
        np.full_like(fresh, np.nan)[::-1],
        np.full((fresh.shape[0], *fresh.shape[1:-1], 99), np.nan, np.float32)[
            ..., 3 : 3 + fresh.shape[-1]
        ],
    ):
        result = run(case, out=room)
        assert result is room
        assert room.tobytes() == fresh.tobytes()


def test_out_leaves_its_surroundings_alone():
    case = Case("float32", rows=19, keys=33, heads=(2, 4, 2, 4), dims=(16, 5))
    room = np.full((2, 6, 21, 9), 7, np.float32)
    inside = room[:, 1:5, 1:20, 2:7]
    run(case, out=inside)
    inside[...] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_out_dtype_float32_is_not_rounded_anywhere(dtype):
    """Nor are the weights that it is made from."""
    case = Case(dtype, rows=33, keys=140)
    arrays = case.arrays()
    partial = fanano.attention(*arrays, out_dtype="float32", **case.options)
    assert partial.dtype == np.float32
    exact = oracle.attention(*arrays, **case.options).out
    assert np.abs(partial - exact).max() <= 1e-6
    isa = next(k.isa for k in fanano.kernels() if k.chosen)
    of_pairs = {"bfloat16": ("scalar", "avx512bf16", "amx"), "float16": ("amx",)}
    if isa not in of_pairs[dtype]:
        assert run(case).tobytes() == partial.astype(compare.DTYPES[dtype]).tobytes()


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "rows", "keys", "value_dim"),
    [
        (0, 2, 2, 3, 3, 4),
        (2, 0, 0, 3, 3, 4),
        (2, 2, 1, 0, 3, 4),
        (2, 2, 1, 3, 0, 4),
        (2, 2, 1, 3, 3, 0),
        (0, 0, 0, 0, 0, 0),
    ],
)
def test_nothing_at_all(batch, heads, kv_heads, rows, keys, value_dim, algorithm, dtype):
    dtype = compare.DTYPES[dtype]
    q = np.ones((batch, heads, rows, 8), dtype)
    k = np.ones((batch, kv_heads, keys, 8), dtype)
    v = np.ones((batch, kv_heads, keys, value_dim), dtype)
    out, lse = fanano.attention(q, k, v, return_lse=True, algorithm=algorithm)
    assert out.shape == (batch, heads, rows, value_dim)
    assert out.dtype == dtype
    assert lse.shape == (batch, heads, rows)
    assert lse.dtype == compare.accumulator(dtype)
    assert (out == 0).all()
    if keys == 0:
        assert (lse == -np.inf).all()
    else:
        np.testing.assert_allclose(lse, np.log(keys) + np.sqrt(8), rtol=1e-6)


@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_a_row_that_may_attend_to_nothing(dtype, algorithm):
    """Zeros and -inf, even where the query itself is NaN; the neighbours do not notice."""
    q, k, v = Case(dtype, rows=40, keys=20).arrays()
    clean = fanano.attention(q, k, v, is_causal=True, algorithm=algorithm)
    q[:, :, :20] = np.nan
    out, lse = fanano.attention(q, k, v, is_causal=True, return_lse=True, algorithm=algorithm)
    assert (out[:, :, :20] == 0).all()
    assert (lse[:, :, :20] == -np.inf).all()
    assert out[:, :, 20:].tobytes() == clean[:, :, 20:].tobytes()


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_what_is_masked_never_shows(dtype, algorithm, garbage):
    """Behind the lengths and behind causality, bit for bit, in tiles that others see partly."""
    q, k, v = Case(dtype, rows=150, keys=150, heads=(2, 2, 1, 4), dims=(24, 17)).arrays()
    options = {"is_causal": True, "kv_lengths": [150, 77], "q_lengths": [150, 140]}
    options |= {"q_offset": 0, "algorithm": algorithm}
    clean, clean_lse = fanano.attention(q, k, v, return_lse=True, **options)
    with np.errstate(over="ignore"):
        garbage = np.asarray(garbage).astype(k.dtype)
    k[1, :, 77:] = v[1, :, 77:] = garbage
    k[0, :, 131:] = v[0, :, 130:] = garbage
    q[1, :, 140:] = garbage
    out, lse = fanano.attention(q, k, v, return_lse=True, **options)
    for now, before in (out, clean), (lse, clean_lse):
        assert now[1].tobytes() == before[1].tobytes()
        assert now[0, :, :130].tobytes() == before[0, :, :130].tobytes()
    if np.isnan(garbage):
        assert np.isnan(out[0, :, 130:]).all()


@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("at", [0, 1, 63, 100, 149])
def test_a_visible_nan_shows_in_exactly_its_rows(at, dtype, algorithm):
    q, k, v = Case(dtype, rows=150, keys=150, heads=(1, 2, 2, 4), dims=(24, 17)).arrays()
    q, k, v = (x.copy() for x in (q, k, v))
    clean = fanano.attention(q, k, v, is_causal=True, algorithm=algorithm)
    rows = np.arange(150) >= at

    def check(q, k, v, nan):
        out = fanano.attention(q, k, v, is_causal=True, algorithm=algorithm)
        assert (np.isnan(out) == nan).all()
        others = ~np.isnan(out).any(-1)  # rows that see none, bit for bit
        assert out[others].tobytes() == clean[others].tobytes()
        compare.judge_attention(out, None, q, k, v, is_causal=True)

    for dim in 0, 23:
        bad = k.copy()
        bad[0, 1, at, dim] = np.nan
        check(q, bad, v, rows[:, None] & (np.arange(2) == 1)[:, None, None])
        bad = q.copy()
        bad[0, 1, at, dim] = np.nan
        check(bad, k, v, (np.arange(150) == at)[:, None] & (np.arange(2) == 1)[:, None, None])
    bad = v.copy()
    bad[0, 1, at, 5] = np.nan
    seen = rows[:, None] & (np.arange(17) == 5) & (np.arange(2) == 1)[:, None, None]
    check(q, k, bad, seen)


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_visible_infinities_do_what_plain_attention_does(dtype):
    q, k, v = Case(dtype, rows=40, keys=150, heads=(1, 1, 1, 2), dims=(24, 17)).arrays()
    v[70, 3], v[71, 4] = np.inf, -np.inf
    compare.judge_attention(fanano.attention(q, k, v), None, q, k, v)
    k[20, 0] = np.inf  # +inf and -inf scores, by the sign of q
    compare.judge_attention(fanano.attention(q, k, v), None, q, k, v)


@pytest.mark.parametrize("algorithm", ["safe", "online", "flash"])
def test_scale_zero_is_the_mean(algorithm):
    q, k, v = Case("float32", rows=20, keys=150).arrays()
    out, lse = fanano.attention(q * 1e18, k, v, scale=0, return_lse=True, algorithm=algorithm)
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(2, keepdims=True), out.shape), atol=1e-6)
    np.testing.assert_allclose(lse, np.log(150), rtol=1e-6)


def test_naive_overflows_and_the_others_do_not():
    """e^89 is beyond float32: the naive softmax divides infinity by infinity."""
    one = np.ones((1, 1), np.float32)
    for algorithm, expected in ("naive", np.nan), ("safe", 1), ("online", 1), ("flash", 1):
        out = fanano.attention(one * 10, one * 10, one, algorithm=algorithm)
        np.testing.assert_allclose(out, expected * one, rtol=2**-23, err_msg=algorithm)


@pytest.mark.parametrize("algorithm", ["naive", "safe", "online", "flash"])
def test_many_maxima(algorithm):
    """Each key beats all before it by a little more than a tile's headroom, and then by less."""
    case = Case("float32", rows=131, keys=160, heads=(1, 1, 1, 2), dims=(24, 7))
    for step in 0.5, 3.0, 6.0, 40.0:
        if algorithm == "naive" and step > 0.5:
            continue
        judgement = compare.Judgement(f"step {step}")
        for draw in range(8):
            q, k, v = case.arrays(draw)
            q[:, 0], k[:, 0] = np.linspace(-1, 1, 131), np.arange(160) * step / 2
            out, lse = fanano.attention(q, k, v, scale=1, return_lse=True, algorithm=algorithm)
            judgement.add(out, lse, q, k, v, scale=1)
        judgement.verdict()


@pytest.mark.parametrize("offset", [-(2**62), -(2**40), -200, -1, 0, 3, 200, 2**40, 2**62])
@pytest.mark.parametrize("rows", [1, 40])
def test_any_offset(offset, rows):
    q, k, v = Case("float32", rows=rows, keys=70, heads=(1, 1, 1, 2)).arrays()
    out, lse = fanano.attention(q, k, v, is_causal=True, q_offset=offset, return_lse=True)
    near = max(-1000, min(1000, offset))
    compare.judge_attention(out, lse, q, k, v, is_causal=True, q_offset=near)


def test_lengths_may_be_lists_and_int32():
    q, k, v = Case("float32", rows=20, keys=30, heads=(2, 2, 2, 4)).arrays()
    first = fanano.attention(q, k, v, kv_lengths=[30, 7], q_lengths=[20, 3])
    for kind in np.int32, np.int64:
        lengths = {"kv_lengths": np.array([30, 7], kind), "q_lengths": np.array([20, 3], kind)}
        assert fanano.attention(q, k, v, **lengths).tobytes() == first.tobytes()
    compare.judge_attention(first, None, q, k, v, kv_lengths=[30, 7], q_lengths=[20, 3])


def test_inputs_are_not_written():
    case = Case("float32", rows=70, keys=70, strides="columns", where="causal")
    arrays = case.arrays()
    before = [x.tobytes() for x in arrays]
    for x in arrays:
        x.flags.writeable = False
    fanano.attention(*arrays, **case.options)
    assert [x.tobytes() for x in arrays] == before
