"""fanano.jax: attention and its gradients through XLA, by the judgement of compare.py, bit for bit
what the eager functions give, and close to jax.nn's own."""

from types import SimpleNamespace

import compare
import numpy as np
import oracle
import pytest
from arrays import bits, numbers
from cases import Case
from jax_arrays import needs_jax, to_jax, x64

import fanano

try:
    import jax
    import jax.numpy as jnp

    import fanano.jax
except ModuleNotFoundError:
    jax = None

pytestmark = needs_jax

# Few, for each is compiled: every option once or more, each rank and layout, both kernel classes.
CASES = [
    {"rows": 9, "keys": 131, "heads": (2, 6, 2, 4), "dims": (33, 16), "lengths": "keys"},
    {"rows": 97, "keys": 65, "heads": (2, 4, 2, 4), "where": "causal", "data": "growing"},
    {"rows": 65, "keys": 97, "where": "upper left", "layout": "bshd", "heads": (2, 4, 1, 4),
     "mask": "bool (B, 1, Sq, Sk)", "sinks": True, "data": "partly hidden"},
    {"rows": 33, "keys": 64, "heads": (1, 4, 2, 3), "layout": "bshd", "where": "shifted",
     "mask": "float32 (Sq, Sk)", "softcap": 0.7},
    {"rows": 17, "keys": 40, "heads": (1, 1, 1, 2), "window": (5, 70), "slopes": "heads"},
    {"rows": 31, "keys": 129, "heads": (2, 2, 2, 4), "where": "per batch", "slopes": "batch",
     "mask": "bfloat16 (B, 1, 1, Sk)", "lengths": "both", "data": "hidden", "scale": -0.8},
    {"rows": 40, "keys": 33, "heads": (1, 1, 1, 2), "layout": "bshd", "sinks": True,
     "mask": "float16 (B, H, Sq, Sk)", "where": "causal"},
    {"rows": 20, "keys": 20, "heads": (2, 2, 2, 4), "lengths": "some empty", "dims": (16, 0)},
    {"rows": 0, "keys": 7, "heads": (2, 2, 2, 4)},
]  # fmt: skip


def upstream(case):
    return tuple(map(to_jax, case.upstream()))


def narrowed(case):
    """The options; numbers of 64 bits only where JAX has some."""
    narrow = {"int64": np.int32, "float64": np.float32}
    return {
        name: x.astype(narrow[x.dtype.name])
        if case.dtype != "float64" and name != "attn_mask" and getattr(x, "itemsize", 0) == 8
        else x
        for name, x in case.options.items()
    }


def differentiated(case, options):
    """The arrays of a case, those that have a gradient first, by name; and a function of them."""
    names = ["query", "key", "value"]
    given = dict(zip(names, map(to_jax, case.arrays()), strict=True))
    options = {k: to_jax(x) if isinstance(x, np.ndarray) else x for k, x in options.items()}
    for name in "attn_mask", "sinks":
        if name in options and options[name].dtype != bool:
            names.append(name)
            given[name] = options.pop(name)

    def attend(given, others):
        return fanano.jax.attention(
            **given, **others, **fixed, return_lse=True, out_dtype=case.out_dtype
        )

    others = {k: x for k, x in options.items() if isinstance(x, jax.Array)}
    fixed = {k: x for k, x in options.items() if k not in others}
    return given, others, attend


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("n", range(len(CASES)))
def test_each_problem(n, dtype):
    """Compiled, everything traced: outputs and gradients are those of the eager functions, whose
    kernels test_attention.py and test_backward.py judge, bit for bit; judged here all the same."""
    case = Case(dtype, **CASES[n], out_dtype="float32" if n == 1 and dtype == "float16" else None)
    options = narrowed(case)
    with x64(dtype == "float64"):
        given, others, attend = differentiated(case, options)
        dout, dlse = upstream(case)

        @jax.jit
        def both(given, others, dout, dlse):
            found, pull = jax.vjp(lambda x: attend(x, others), given)
            return found, pull((dout.astype(found[0].dtype), dlse))[0]

        (out, lse), found = both(given, others, dout, dlse)
    query, key, value = case.arrays()
    eager = fanano.attention(
        query, key, value, return_lse=True, out_dtype=case.out_dtype, **options
    )
    assert [bits(out), bits(lse)] == [bits(x) for x in eager]
    gradients = fanano.attention_backward(
        np.asarray(dout).astype(eager[0].dtype), query, key, value, *eager, dlse=np.asarray(dlse),
        grad_mask="attn_mask" in given, **options,
    )  # fmt: skip
    named = dict(zip(compare.GRADIENTS, gradients, strict=True))
    names = {"query": "dq", "key": "dk", "value": "dv", "attn_mask": "dbias", "sinks": "dsinks"}
    got = dict.fromkeys(compare.GRADIENTS) | {names[n]: np.asarray(x) for n, x in found.items()}
    for name, x in got.items():
        if x is not None:
            assert bits(x) == bits(np.asarray(named[name]).astype(x.dtype)), name
    compare.judge_attention(
        np.asarray(out), np.asarray(lse), query, key, value, what=str(case),
        out_dtype=case.out_dtype, **options,
    )  # fmt: skip
    judgement = compare.GradientJudgement(str(case))
    judgement.add(
        SimpleNamespace(**got), query, key, value, *case.upstream()[:1],
        dlse=case.upstream()[1], **options,
    )  # fmt: skip
    judgement.verdict()


# ---- against jax.nn ------------------------------------------------------------------------------

B, T, S, N, K, H = 2, 5, 7, 4, 2, 8


def tensors():
    return [to_jax(numbers(*s, seed=i)) for i, s in enumerate([(B, T, N, H), *[(B, S, K, H)] * 2])]


def shown():
    """A mask by which every row sees the first key: jax.nn gives other rows an average."""
    return to_jax((numbers(B, 1, T, S) > 0) | (np.arange(S) == 0))


OPTIONS = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "bias (B, N, T, S)": {"bias": lambda: to_jax(numbers(B, N, T, S, seed=5))},
    "bias (1, N, 1, S)": {"bias": lambda: to_jax(numbers(1, N, 1, S, seed=5))},
    "bias (T, S)": {"bias": lambda: to_jax(numbers(T, S, seed=5))},
    "mask": {"mask": shown},
    "mask and bias": {"mask": shown, "bias": lambda: to_jax(numbers(1, N, T, S, seed=5))},
    "lengths": {
        "query_seq_lengths": lambda: jnp.array([5, 2], jnp.int32),
        "key_value_seq_lengths": lambda: jnp.array([7, 3], jnp.int32),
    },
    "lengths beyond": {
        "query_seq_lengths": lambda: jnp.array([9, 5], jnp.int32),
        "key_value_seq_lengths": lambda: jnp.array([7, 100], jnp.int32),
    },
    # Without another mask JAX 0.6 forgets the window.
    "window": {
        "local_window_size": (2, 1),
        "key_value_seq_lengths": lambda: jnp.array([S, S], jnp.int32),
    },
    "window of one number": {"local_window_size": 3, "is_causal": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_jax_nn(name):
    """Compiled, so that lengths are traced; those beyond the arrays are clamped by both."""
    options = {k: x() if callable(x) else x for k, x in OPTIONS[name].items()}
    arrays = {k: x for k, x in options.items() if isinstance(x, jax.Array)}
    fixed = {k: x for k, x in options.items() if k not in arrays}
    weights = to_jax(numbers(B, T, N, H, seed=9))

    def by(function):
        def loss(query, key, value, floats, others):
            out = function(query, key, value, **floats, **others, **fixed)
            return (out * weights).sum(), out

        floats = {k: x for k, x in arrays.items() if k == "bias"}
        others = {k: x for k, x in arrays.items() if k != "bias"}
        call = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
        return call(*tensors(), floats, others)

    for x, y in zip(
        jax.tree.leaves(by(fanano.jax.dot_product_attention)),
        jax.tree.leaves(by(jax.nn.dot_product_attention)),
        strict=True,
    ):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)


def test_ranks_and_residuals():
    """The log-sum-exp in JAX's way and in ours."""
    import inspect

    if "return_residual" not in inspect.signature(jax.nn.dot_product_attention).parameters:
        pytest.skip("this JAX has no return_residual")
    for arrays in tensors(), [x[0] for x in tensors()]:
        ours = fanano.jax.dot_product_attention(*arrays, return_residual=True)
        theirs = jax.nn.dot_product_attention(*arrays, return_residual=True)
        for x, y in zip(ours, theirs, strict=True):
            assert x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)
        out, lse = fanano.jax.dot_product_attention(*arrays, return_lse=True)
        assert bits(out) == bits(ours[0])
        assert bits(lse) == bits(jnp.swapaxes(ours[1], -1, -2))
    half = [x.astype(jnp.bfloat16) for x in tensors()]
    assert fanano.jax.dot_product_attention(*half, return_residual=True)[1].dtype == jnp.bfloat16
    assert fanano.jax.dot_product_attention(*half, return_lse=True)[1].dtype == jnp.float32

    def residual(query):
        return fanano.jax.dot_product_attention(query, *tensors()[1:], return_residual=True)[1]

    assert (jax.grad(lambda x: residual(x).sum())(tensors()[0]) == 0).all()


def test_what_differs_from_jax_nn():
    """Rows that see nothing, and what lies behind a mask."""
    query, key, value = tensors()
    mask = jnp.ones((B, 1, T, S), bool).at[:, :, 2].set(False).at[..., 3].set(False)
    key, value = key.at[:, 3].set(jnp.nan), value.at[:, 3].set(jnp.inf)

    def loss(*arrays):
        out = fanano.jax.dot_product_attention(*arrays, mask=mask)
        return out.sum(), out

    found, out = jax.grad(loss, (0, 1, 2), has_aux=True)(query, key, value)
    assert (out[:, 2] == 0).all()
    assert (found[0][:, 2] == 0).all()
    assert all(jnp.isfinite(x).all() for x in (out, *found))


def test_float64_while_x64_is_off():
    """Numbers that are added and finite stay so where float32 has no such: no NaN, no -inf."""
    shapes = (2, 4, 6, 8), (2, 2, 7, 8), (2, 2, 7, 3)
    arrays = [numbers(*s, seed=i) for i, s in enumerate(shapes)]
    mask = np.zeros((6, 7))
    mask[0], mask[1], mask[2, 3], mask[3], mask[4, 2:] = (
        1e300, np.finfo("float64").min, 1e39, -np.inf, -1e300)  # fmt: skip
    sinks = np.array([1e39, -1e300, -np.inf, 0.5])
    for options in {"attn_mask": mask}, {"sinks": sinks}, {"sinks": sinks.tolist()}:
        got = fanano.jax.attention(*arrays, return_lse=True, **options)
        for x, y in zip(got, fanano.attention(*arrays, return_lse=True, **options), strict=True):
            assert bits(x) == bits(y)
    both = np.where(seen := np.arange(7) % 3 > 0, mask, -np.inf)
    got = fanano.jax.dot_product_attention(
        *(np.swapaxes(x, 1, 2) for x in arrays), bias=mask[None, None], mask=seen[None, None, None]
    )
    assert bits(jnp.swapaxes(got, 1, 2)) == bits(fanano.attention(*arrays, attn_mask=both))


def test_options_beyond_jax_nn():
    """softcap, slopes, sinks and out_dtype are fanano.attention's."""
    arrays = [x.astype(jnp.bfloat16) for x in tensors()]
    more = {"softcap": 1.5, "alibi_slopes": to_jax(numbers(N) ** 2), "sinks": to_jax(numbers(N))}
    got = fanano.jax.dot_product_attention(*arrays, **more, out_dtype="float32", is_causal=True)
    expected = fanano.attention(
        *arrays, **more, out_dtype="float32", is_causal=True, q_offset=0, layout="bshd"
    )
    assert got.dtype == jnp.float32
    assert bits(got) == bits(expected)


def test_oracle_of_a_window_that_shows_nothing():
    """The same alignment as the oracle's: upper left, row 4 of a window to the left of all keys."""
    query, key, value = (np.asarray(x) for x in tensors())
    out = fanano.jax.dot_product_attention(
        query, key[:, :2], value[:, :2], local_window_size=(1, 0)
    )
    exact = oracle.attention(
        query, key[:, :2], value[:, :2], layout="bshd", q_offset=0, window_size=(1, 0)
    )
    np.testing.assert_allclose(np.asarray(out).swapaxes(1, 2), exact.out, atol=1e-5)
    assert (np.asarray(out)[:, 3:] == 0).all()
