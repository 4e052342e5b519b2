"""What must never reach gradients, and what must: NaN, infinities and tiny numbers, behind masks
and where rows see them."""

import compare
import numpy as np
import pytest
from test_backward_bits import KEYS, ROWS, dtypes, problem, run, same


@dtypes
@pytest.mark.parametrize("kind", ["bool", "causal", *compare.DTYPES])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_hidden_never_shows(garbage, kind, dtype):
    """Rows above 100 see the keys from 150 on alone, the others those before, in tiles and blocks
    that they share: what is NaN on one side is nothing to the other. Causality has no such sides:
    there, what the last rows alone see."""
    q, k, v, dout, _ = arrays = problem(dtype, data="normal")
    row, key = np.arange(ROWS)[:, None], np.arange(KEYS)
    if kind == "causal":
        options, rows, keys = {"is_causal": True, "q_offset": 100}, np.s_[:, :, :100], None
    else:
        seen = ((row < 100) == (key < 150)) & (row % 7 != 3)  # some rows see nothing
        mask = seen if kind == "bool" else np.where(seen, 0, -np.inf).astype(compare.DTYPES[kind])
        options, rows, keys = {"attn_mask": mask}, np.s_[:, :, :100], np.s_[:, :, :150]
    clean = run(arrays, **options)
    with np.errstate(over="ignore"):
        garbage = np.asarray(garbage).astype(k.dtype)
    for x, at in ((q, 120), (k, 220), (v, 230), (dout, 130)):
        before = x.copy()
        x[:, :, at] = garbage
        spoilt = run(arrays, **options)
        x[...] = before
        if x is k or x is v or keys is not None:
            assert spoilt.dq[rows].tobytes() == clean.dq[rows].tobytes()
        if keys is not None:
            assert spoilt.dk[keys].tobytes() == clean.dk[keys].tobytes()
            assert spoilt.dv[keys].tobytes() == clean.dv[keys].tobytes()
            if kind != "bool":
                assert spoilt.dbias[:100].tobytes() == clean.dbias[:100].tobytes()
    if kind != "causal":
        nothing = np.arange(ROWS) % 7 == 3
        q[:, :, nothing] = dout[:, :, nothing] = garbage
        same(run(arrays, **options), clean)
        assert (clean.dq[:, :, nothing] == 0).all()


@dtypes
def test_keys_that_no_row_sees(dtype):
    _, k, v, *_ = arrays = problem(dtype)
    options = {"is_causal": True, "q_offset": 20, "sinks": [1, 2, 3, 4.0]}
    whole = run(arrays, **options)
    k[:, :, ROWS + 20 :] = v[:, :, ROWS + 20 :] = np.nan
    same(run(arrays, **options), whole)
    assert (whole.dk[:, :, ROWS + 20 :] == 0).all()
    assert (whole.dv[:, :, ROWS + 20 :] == 0).all()


@dtypes
@pytest.mark.parametrize("kind", ["bool", *compare.DTYPES])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 3e38])
def test_a_key_that_a_mask_hides_from_every_row(garbage, kind, dtype):
    """Among others that they see, by strips of which the last is not full."""
    _, k, v, *_ = arrays = problem(dtype, data="normal")
    seen = np.broadcast_to(np.arange(KEYS) != 77, (ROWS, KEYS))
    mask = seen if kind == "bool" else np.where(seen, 0, -np.inf).astype(compare.DTYPES[kind])
    clean = run(arrays, attn_mask=mask)
    with np.errstate(over="ignore"):
        k[:, :, 77] = v[:, :, 77] = np.asarray(garbage).astype(k.dtype)
    same(run(arrays, attn_mask=mask), clean)
    assert (clean.dk[:, :, 77] == 0).all()
    assert (clean.dv[:, :, 77] == 0).all()


TINY = {
    "float32": [2.0**-60, 2.0**-118, 2.0**-140],
    "bfloat16": [2.0**-110, 2.0**-118, 2.0**-124, 2.0**-133],
    "float16": [2.0**-16, 2.0**-24],
}


@pytest.mark.parametrize("hidden", [0.0, "tiny", np.nan, np.inf, -3e38])
@pytest.mark.parametrize(
    ("dtype", "visible"), [(dtype, x) for dtype in TINY for x in [1.0, *TINY[dtype]]]
)
@pytest.mark.parametrize("what", [0, 1, 2, 3], ids=["q", "k", "v", "dout"])
def test_hidden_numbers_of_any_kind_do_not_show(what, dtype, visible, hidden):
    """Not in a single bit, where others are ordinary or tiny: instructions take those for zeros."""
    arrays = problem(dtype, data="normal", dims=(64, 24))
    hidden = TINY[dtype][-1] if hidden == "tiny" else hidden
    x = arrays[what]
    x[..., 5] = (x[..., 5].astype(np.float64) * visible).astype(x.dtype)
    seen = np.tril(np.ones((ROWS, KEYS), bool), 120)
    seen[:, 77] = seen[33] = False
    place = (Ellipsis, 33 if what in (0, 3) else 77, slice(None))
    for mask in seen, np.where(seen, 0, -np.inf):
        x[place] = 1
        expected = run(arrays, attn_mask=mask)
        with np.errstate(over="ignore"):
            x[place] = np.asarray(hidden).astype(x.dtype)
        same(run(arrays, attn_mask=mask), expected)


@dtypes
def test_rows_that_see_their_sinks_alone(dtype):
    """dlse reaches the sink, whatever dout is, and nothing reaches anything else."""
    q, _, _, dout, dlse = arrays = problem(dtype, rows=40, keys=20)
    q[...] = dout[...] = np.nan
    sinks = np.array([0.5, 40.0, -3.0, -np.inf])
    got = run(arrays, q_offset=-60, is_causal=True, sinks=sinks)
    for x in got[:3]:
        assert (x == 0).all()
    expected = np.where(np.isfinite(sinks), dlse.sum((0, 2), dtype=np.float64), 0)
    np.testing.assert_allclose(got.dsinks, expected, rtol=1e-5)
    alone = run(arrays, q_offset=-60, is_causal=True)
    assert all((x == 0).all() for x in alone[:3])


@dtypes
def test_a_visible_nan_is_not_lost(dtype):
    """In the query or dout of row 60, or in key or value 200. Exactly where it shows is judged in
    test_backward.py."""
    row = np.arange(ROWS)
    for which, at in enumerate((60, 200, 200, 60)):
        arrays = problem(dtype, data="normal")
        arrays[which][1, 0, at, 3] = np.nan
        got = run(arrays, is_causal=True)
        rows = row == 60 if at == 60 else row + KEYS - ROWS >= 200
        assert np.isnan(got.dq[1, 0, rows]).any(-1).all()
        if which < 3:
            assert np.isnan(got.dk[1, 0, at if which else 0]).any()
        if which != 2:
            assert np.isnan(got.dv[1, 0, at if which == 1 else 0]).any()


def specials(x):
    """Numbers are 0; infinities and NaN stay."""
    return np.where(np.isfinite(x), 0, x).astype(np.float32)


@pytest.mark.parametrize("bits", [0x7E00, 0x7FFF, 0xFFFF, 0x7DFF, 0x7C01])
def test_every_nan_of_float16_is_one(bits):
    clean = problem("float16", rows=70, keys=140, data="normal")
    for what in range(4):
        arrays = [x.copy() for x in clean]
        arrays[what].view(np.uint16)[0, 0, 5, 7] = bits
        got = run(arrays)
        arrays[what][0, 0, 5, 7] = np.nan
        for x, y in zip(got[:3], run(arrays)[:3], strict=True):
            np.testing.assert_array_equal(np.isnan(x), np.isnan(y))
        assert any(np.isnan(x).any() for x in got[:3])


@dtypes
def test_infinite_gradients_are_infinite(dtype):
    """dS of the rows is, and times a number of q or k that is finite so is all that it goes to."""
    arrays = problem(dtype, rows=70, keys=140, data="normal")
    dout = arrays[3]
    dout[0, 0, 5, 7] = np.inf
    got, as_floats = run(arrays), run([x.astype(np.float64) for x in arrays])
    assert np.isinf(got.dk).any()
    assert np.isinf(got.dv).any()
    for x, y in zip(got[:3], as_floats[:3], strict=True):
        np.testing.assert_array_equal(specials(x), specials(y))
