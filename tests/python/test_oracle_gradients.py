"""The oracle's gradients, against differences of its own forward in long double, and the rules of
the contract that no difference can show. torch and jax are in test_oracle_peers.py."""

import numpy as np
import oracle
import oracle_gradients
import pytest
from cases import Case

B, H, KV, SQ, SK, D, DV = 2, 4, 2, 3, 5, 3, 2
NAMES = ("dq", "dk", "dv", "dbias", "dsinks")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def seen(*shape, rate=0.6):
    return np.random.default_rng(shape).random(shape) < rate


def problem(dtype=np.float64):
    """query, key, value, dout, dlse"""
    shapes = (B, H, SQ, D), (B, KV, SK, D), (B, KV, SK, DV), (B, H, SQ, DV), (B, H, SQ)
    return [numbers(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


SINKS = np.array([0.5, -3.0, 2.0, -np.inf])
SLOPES = np.array([0.5, 0.01, 2.0, -0.3])
BIAS = np.where(seen(SQ, SK, rate=0.8), numbers(SQ, SK), -np.inf)
EVERYTHING = {
    "attn_mask": np.where(seen(B, 1, SQ, SK, rate=0.8), numbers(B, 1, SQ, SK), -np.inf),
    "is_causal": True, "window_size": (3, None), "q_offset": [1, 2], "scale": -0.8,
    "softcap": 0.9, "alibi_slopes": np.stack([SLOPES, SLOPES[::-1]]), "sinks": SINKS,
    "q_lengths": [3, 2], "kv_lengths": [5, 4],
    "dropout_p": 0.3, "keep": seen(B, H, SQ, SK, rate=0.7),
}  # fmt: skip
OPTIONS = {
    "full": {},
    "causal": {"is_causal": True},
    "upper left": {"is_causal": True, "q_offset": 0},
    "rows that see nothing": {"is_causal": True, "q_offset": -2},
    "window": {"window_size": (1, 0), "q_offset": [0, 3]},
    "bool mask": {"attn_mask": seen(H, SQ, SK)},
    "bias": {"attn_mask": BIAS},
    "bias for each key": {"attn_mask": numbers(B, 1, 1, SK)},
    "bias for each row": {"attn_mask": numbers(H, SQ, 1)},
    "one bias": {"attn_mask": numbers()},
    "softcap": {"softcap": 0.7, "scale": 1.5},
    "slopes": {"alibi_slopes": SLOPES, "is_causal": True},
    "slopes both ways": {"alibi_slopes": SLOPES, "q_offset": [1, -1]},
    "sinks": {"sinks": SINKS},
    "sinks alone": {"sinks": SINKS, "is_causal": True, "q_offset": -2},
    "lengths": {"q_lengths": [2, 3], "kv_lengths": [5, 0]},
    "lengths and sinks": {"q_lengths": [2, 3], "kv_lengths": [5, 0], "sinks": SINKS},
    "scale 0": {"scale": 0.0},
    "dropout": {"dropout_p": 0.4, "keep": seen(B, H, SQ, SK)},
    "dropout of everything": {"dropout_p": 1.0, "keep": np.ones((1, 1, 1, 1), bool)},
    "all at once": EVERYTHING,
}


def finite(x, otherwise):
    return np.where(np.isfinite(x), x, otherwise)


@pytest.mark.parametrize("name", OPTIONS)
def test_against_differences(name):
    """f(x + h e) for h = +-1e-4, +-2e-4 in one direction e: the error is of order h^4."""
    *qkv, dout, dlse = problem(np.longdouble)
    options = dict(OPTIONS[name], compute=np.longdouble)
    found = oracle_gradients.gradients(*qkv, dout, dlse=dlse, **options)
    at = dict(zip(("dq", "dk", "dv"), qkv, strict=True))
    mask = options.get("attn_mask")
    at["dbias"] = None if mask is None or mask.dtype == bool else mask.astype(np.longdouble)
    at["dsinks"] = None if "sinks" not in options else SINKS.astype(np.longdouble)

    def loss(x):
        here = options | {"attn_mask": mask if x["dbias"] is None else x["dbias"]}
        got = oracle.attention(x["dq"], x["dk"], x["dv"], **here | {"sinks": x["dsinks"]})
        return (got.out * dout).sum() + (finite(got.lse, 0) * dlse).sum()

    for n, which in enumerate(NAMES):
        gradient = getattr(found, which)
        assert (gradient is None) == (at[which] is None), which
        if gradient is None:
            continue
        assert gradient.dtype == np.longdouble
        assert gradient.shape == at[which].shape
        e = numbers(*gradient.shape, seed=100 + n).astype(np.longdouble)
        h = np.longdouble(1e-4)
        near, far = (
            loss(at | {which: at[which] + m * h * e}) - loss(at | {which: at[which] - m * h * e})
            for m in (1, 2)
        )
        slope = (8 * near - far) / (12 * h)
        np.testing.assert_allclose((gradient * e).sum(), slope, rtol=1e-11, atol=1e-12)


def test_one_row_by_hand():
    """Two keys with probabilities 1/4 and 3/4: every formula fits on a line."""
    q, k = np.ones((1, 1)), np.array([[0.0], [np.log(3)]])
    v, do = np.array([[2.0], [6.0]]), np.array([[10.0]])
    got = oracle_gradients.gradients(q, k, v, do, dlse=np.array([1.0]), scale=1.0)
    # delta = 10 (2 / 4 + 6 * 3 / 4) = 50; ds = (20 - 50 + 1) / 4, (60 - 50 + 1) * 3 / 4
    np.testing.assert_allclose(got.dv[0, 0, :, 0].astype(float), [2.5, 7.5])
    np.testing.assert_allclose(got.dk[0, 0, :, 0].astype(float), [-7.25, 8.25])
    np.testing.assert_allclose(got.dq[0, 0, 0].astype(float), [8.25 * np.log(3)])
    np.testing.assert_allclose(got.term["dv"][0, 0, :, 0].astype(float), [2.5, 7.5])
    np.testing.assert_allclose(got.term["dk"][0, 0, :, 0].astype(float), [50 / 4, 60 * 3 / 4])


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("heads", [(1, 1, 1, 2), (1, 4, 2, 3), (2, 4, 2, 4)])
def test_layouts_and_ranks(heads, layout):
    """dout lies as the output does; in dlse heads stand before rows."""
    case = Case("float64", rows=SQ, keys=SK, heads=heads, dims=(D, DV), layout=layout)
    arrays, (dout, dlse) = case.arrays(), case.upstream()
    assert dout.ndim == heads[3] == dlse.ndim + 1
    got = oracle_gradients.gradients(*arrays, dout, dlse=dlse, layout=layout)
    arrays = [oracle.four_dims(x, layout) for x in (*arrays, dout)]
    expected = oracle_gradients.gradients(*arrays, dlse=dlse.reshape(*heads[:2], SQ))
    for name in NAMES[:3]:
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))


@pytest.mark.parametrize("sinks", [None, SINKS], ids=["no sinks", "sinks"])
def test_what_is_hidden_has_no_gradient(sinks):
    """NaN behind masks and lengths reaches nothing, neither does the dout of rows that see
    nothing; their gradients are zeros."""
    q, k, v, do, dlse = problem()
    options = {"is_causal": True, "q_offset": [-1, 0], "kv_lengths": [5, 2], "q_lengths": [3, 2]}
    if sinks is not None:
        options["sinks"] = sinks
    clean = oracle_gradients.gradients(q, k, v, do, dlse=dlse, **options)
    q[0, :, 0] = do[0, :, 0] = np.nan  # sees nothing
    q[1, :, 2] = do[1, :, 2] = dlse[1, :, 2] = np.nan  # padding
    k[1, :, 2:] = v[1, :, 2:] = np.nan
    k[0, :, 2:] = v[0, :, 2:] = np.inf
    k[0, :, 1] = np.nan  # the last row sees it
    got = oracle_gradients.gradients(q, k, v, do, dlse=dlse, **options)
    for name in NAMES[:3]:
        a, b = getattr(got, name), getattr(clean, name)
        np.testing.assert_array_equal(a[1], b[1], name)
    np.testing.assert_array_equal(got.dq[0, :, :2], clean.dq[0, :, :2])
    assert np.isnan(got.dq[0, :, 2]).all()
    if sinks is not None:  # -inf is no sink, and has no gradient
        assert np.isnan(got.dsinks).tolist() == [True, True, True, False]
    assert (got.dq[got.empty] == 0).all()
    assert (got.dq[1, :, 2] == 0).all()
    assert (got.dk[got.unseen] == 0).all()
    assert (got.dv[got.unseen] == 0).all()
    assert got.unseen[0, 0].tolist() == [False, False, True, True, True]
    assert got.empty[0, 0].tolist() == [True, False, False]


def test_a_row_that_sees_its_sink_alone():
    """Its lse is the sink: dlse reaches the sink, and nothing else."""
    q, k, v, do, dlse = problem()
    options = {"is_causal": True, "q_offset": -SQ, "sinks": SINKS}
    got = oracle_gradients.gradients(q, k, v, do, dlse=dlse, **options)
    assert (got.dq == 0).all()
    assert (got.dv == 0).all()
    np.testing.assert_allclose(
        got.dsinks, np.where(np.isfinite(SINKS), dlse.sum((0, 2)), 0), rtol=1e-15
    )


def test_nothing_at_all():
    for keys, rows, value_dim in (0, 3, 2), (5, 0, 2), (5, 3, 0):
        q, k = np.ones((1, 2, rows, 4)), np.ones((1, 1, keys, 4))
        v = np.ones((1, 1, keys, value_dim))
        do = np.ones((1, 2, rows, value_dim))
        got = oracle_gradients.gradients(q, k, v, do)
        for found, like in zip((got.dq, got.dk, got.dv), (q, k, v), strict=True):
            assert found.shape == like.shape
            assert (found == 0).all()
