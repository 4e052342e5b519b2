"""The oracle's gradients, against differences of its own forward in long double, and the rules of
the contract that no difference can show. torch and jax are in test_oracle_peers.py."""

import compare
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


# ---- the judgement of gradients ------------------------------------------------------------------


def judged(dtype):
    sizes = {"rows": 37, "keys": 53, "heads": (B, H, KV, 4), "dims": (24, 17)}
    options = {"mask": "float32 (H, Sq, Sk)", "softcap": 2.0, "sinks": True, "scale": 1.3}
    return Case(dtype, **sizes, **options, where="causal")


def by_hand(case, arrays, dout, dlse, forgotten=""):
    """The formulas once more, as a kernel would have them: in the accumulator's type, and each
    result rounded once."""
    dtype, kind = arrays[0].dtype, compare.accumulator(arrays[0].dtype)
    q, k, v, do = (x.astype(kind) for x in (*arrays, dout))
    k, v = (x.repeat(H // KV, 1) for x in (k, v))
    scale, cap = kind.type(case.options["scale"]), kind.type(case.options["softcap"])
    causal = np.tri(case.rows, case.keys, case.keys - case.rows, dtype=bool)
    mask = case.options["attn_mask"]
    t = np.tanh(scale / cap * (q @ k.mT))
    s = np.where(causal, cap * t + mask.astype(kind), -np.inf)
    sink = case.options["sinks"].astype(kind).reshape(H, 1, 1)
    m = np.maximum(s.max(-1, keepdims=True), sink)
    m = np.where(m == -np.inf, 0, m)
    p, p_sink = np.exp(s - m), np.exp(sink - m)
    total = p.sum(-1, keepdims=True) + p_sink
    p, p_sink = (x / np.where(total == 0, 1, total) for x in (p, p_sink))
    dp = do @ v.mT
    delta = (p * dp).sum(-1, keepdims=True)
    if forgotten == "delta":
        delta *= 0
    dlse = dlse[..., None] * (forgotten != "dlse")
    ds = p * (dp - delta + dlse)
    draw = ds if forgotten == "softcap" else ds * (1 - t * t)
    if forgotten != "scale":
        draw = scale * draw
    dk, dv = (x.reshape(B, KV, H // KV, *x.shape[2:]) for x in (draw.mT @ q, p.mT @ do))
    if forgotten == "a head":
        dk[:, :, 1] = 0
    found = oracle_gradients.Gradients(draw @ k, dk.sum(2), dv.sum(2), ds.sum(0))
    found.dq, found.dk, found.dv = (x.astype(dtype) for x in (found.dq, found.dk, found.dv))
    found.dbias = found.dbias.astype(mask.dtype)
    found.dsinks = (p_sink * (dlse - delta)).sum((0, 2, 3))
    return found


def verdict(dtype, damage=lambda found: None, forgotten=""):
    case, judgement = judged(dtype), compare.GradientJudgement(dtype)
    for draw in range(2):
        arrays, (dout, dlse) = case.arrays(draw), case.upstream(draw)
        found = by_hand(case, arrays, dout, dlse, forgotten)
        damage(found)
        judgement.add(found, *arrays, dout, dlse=dlse, **case.options)
    return judgement.verdict()


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_right_gradients_pass(dtype):
    ratios = verdict(dtype)
    assert set(ratios) == set(NAMES)
    if dtype in ("bfloat16", "float16"):  # plain rounds on the way
        assert all(ratios[name].mean < 1 for name in NAMES), ratios


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize(
    ("forgotten", "where"),
    [("delta", "dq"), ("dlse", "dq"), ("softcap", "dq"), ("scale", "dq"), ("a head", "dk")],
)
def test_a_forgotten_step_fails(forgotten, where, dtype):
    with pytest.raises(AssertionError, match=f"{where}.*err"):
        verdict(dtype, forgotten=forgotten)


def changed(name, index, change):
    def damage(found):
        x = getattr(found, name)
        x[index] = change(x[index].astype(np.float64)).astype(x.dtype)

    return damage


DAMAGE = {
    "a row of dq": changed("dq", np.s_[0, 0, 1], np.zeros_like),
    "a key of dk": changed("dk", np.s_[0, 1, 33], np.zeros_like),
    "a key of dv": changed("dv", np.s_[0, 0, 5], lambda x: x[::-1]),
    "all of dv, a little": changed("dv", np.s_[...], lambda x: x + np.abs(x).max() * 2.0**-6),
    "a pair of dbias": changed("dbias", np.s_[2, 30, 40:42], lambda x: x + 0.1),
    "a hidden pair of dbias": changed("dbias", np.s_[0, 0, -1], lambda x: x + 0.01),
    "the sign of dsinks": changed("dsinks", np.s_[...], np.negative),
    "the last head's sink": changed("dsinks", np.s_[-1:], lambda x: x + 0.05),
    "a NaN": changed("dk", np.s_[0, 1, 33, :1], lambda x: x * np.nan),
    "an infinity": changed("dq", np.s_[0, 1, 33, :1], lambda x: x + np.inf),
}


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_gradients_fail(damage, dtype):
    with pytest.raises(AssertionError):
        verdict(dtype, DAMAGE[damage])


def test_gradients_of_what_is_hidden_must_be_zero():
    """Not small: zero."""
    case = Case("float32", rows=9, keys=6, where="causal", dims=(5, 5))  # rows 0 to 2 see nothing
    arrays, (dout, dlse) = case.arrays(), case.upstream()
    hidden = [np.concatenate([x, x[:, :, :2]], 2) for x in arrays[1:]]
    arrays, options = (arrays[0], *hidden), case.options | {"kv_lengths": [6]}
    exact = oracle_gradients.gradients(*arrays, dout, dlse=dlse, **options)
    for name, row in (None, 0), ("dq", 2), ("dk", 6), ("dv", 7):
        found = oracle_gradients.Gradients(
            *(getattr(exact, n).astype(np.float32) for n in NAMES[:3])
        )
        judgement = compare.GradientJudgement()
        if name:
            getattr(found, name)[:, :, row] = 1e-30
            with pytest.raises(AssertionError, match=f"{name} is not zero"):
                judgement.add(found, *arrays, dout, dlse=dlse, **options)
        else:
            judgement.add(found, *arrays, dout, dlse=dlse, **options)
            judgement.verdict()


def test_what_was_not_asked_for_is_not_judged():
    case = judged("float32")
    arrays, (dout, dlse) = case.arrays(), case.upstream()
    found = by_hand(case, arrays, dout, dlse)
    found.dk = found.dbias = None
    judgement = compare.GradientJudgement()
    judgement.add(found, *arrays, dout, dlse=dlse, **case.options)
    assert set(judgement.verdict()) == {"dq", "dv", "dsinks"}
    without = {name: x for name, x in case.options.items() if name != "sinks"}
    with pytest.raises(AssertionError, match="dsinks of a problem that has none"):
        judgement.add(found, *arrays, dout, dlse=dlse, **without)
