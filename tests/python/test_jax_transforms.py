"""fanano.jax inside of JAX's transformations, and fanano.attention where JAX traces it."""

import numpy as np
import pytest
from arrays import bits, numbers
from jax_arrays import needs_jax, refused, to_jax

import fanano

try:
    import jax
    import jax.export
    import jax.numpy as jnp

    import fanano.jax
except ModuleNotFoundError:
    jax = None

pytestmark = needs_jax


def problem(rank=4, layout="bhsd"):
    shapes = (2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 3)
    arrays = [numbers(*s, seed=i) for i, s in enumerate(shapes)]
    if layout == "bshd":
        arrays = [x.swapaxes(1, 2) for x in arrays]
    if rank < 4:
        arrays = [x[0] for x in arrays]
    if rank == 2:
        arrays = [x[:, 0] if layout == "bshd" else x[0] for x in arrays]
    return [to_jax(x) for x in arrays]


def weighted(out, seed=9):
    """A loss by which no two elements have the same derivative."""
    return (out * numbers(*out.shape, seed=seed)).sum()


def examples(axes, option):
    """Three examples of a problem and an option, stacked along the axes; and one by one."""
    each = [[x + i for x in (*problem(),)] + [option[i]] for i in range(3)]
    mapped = [
        each[0][n] if axis is None else jnp.stack([x[n] for x in each], axis)
        for n, axis in enumerate(axes)
    ]
    alone = [[each[0][n] if axis is None else x[n] for n, axis in enumerate(axes)] for x in each]
    return mapped, alone


MAPPED = {
    "mask (Sq, Sk)": ("attn_mask", lambda: numbers(3, 5, 7)),
    "mask (B, 1, Sq, 1)": ("attn_mask", lambda: numbers(3, 2, 1, 5, 1)),
    "mask (B, Hq, Sq, Sk)": ("attn_mask", lambda: numbers(3, 2, 4, 5, 7)),
    "mask (1, Hq, 1, Sk)": ("attn_mask", lambda: numbers(3, 1, 4, 1, 7)),
    "sinks": ("sinks", lambda: numbers(3, 4)),
    "slopes": ("alibi_slopes", lambda: np.abs(numbers(3, 4))),
    "slopes (B, Hq)": ("alibi_slopes", lambda: np.abs(numbers(3, 2, 4))),
    "lengths": ("kv_lengths", lambda: np.array([[7, 2], [0, 5], [1, 1]], np.int32)),
    "one offset": ("q_offset", lambda: np.array([0, 3, -2], np.int32)),
}
AXES = [(0, 0, 0, 0), (0, None, None, None), (None, 1, -1, 0), (None, None, None, 0)]


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_vmap_is_one_by_one(name, axes):
    """Results and gradients, bit for bit, for rows do not depend on each other; but gradients by
    what is broadcast over a batch are sums in another order."""
    argument, make = MAPPED[name]
    mapped, alone = examples(axes, to_jax(make()))

    def attend(query, key, value, other):
        return fanano.attention(query, key, value, is_causal=True, **{argument: other})

    by = (0, 1, 2, 3) if argument in ("attn_mask", "sinks") else (0, 1, 2)
    derive = jax.value_and_grad(lambda *x: weighted(attend(*x)), by)
    single, out = jax.jit(derive), jax.jit(jax.vmap(attend, axes))(*mapped)
    assert [bits(x) for x in out] == [bits(jax.jit(attend)(*x)) for x in alone]
    _, found = jax.jit(jax.vmap(derive, axes))(*mapped)
    for n, x in enumerate(found):
        expected = jnp.stack([single(*one)[1][n] for one in alone])
        if n < 3:
            assert bits(x) == bits(expected)
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("rank", [2, 3])
def test_vmap_adds_the_axes_that_are_left_out(layout, rank):
    arrays = problem(rank, layout)

    def attend(*arrays):
        return fanano.jax.attention(*arrays, layout=layout, return_lse=True)

    many = [jnp.stack([x, -x]) for x in arrays]
    nested = jax.vmap(jax.vmap(attend))(*(jnp.stack([x, x * 2]) for x in many))
    out, lse = fanano.attention(*(-2 * x for x in arrays), layout=layout, return_lse=True)
    assert bits(nested[0][1, 1]) == bits(out)
    assert bits(nested[1][1, 1]) == bits(lse)


def test_the_gradient_of_a_vmap():
    """Sinks and slopes that all examples share, and those of each."""
    query, key, value = problem()
    queries, sinks = jnp.stack([query, query * 2]), to_jax(numbers(2, 4))

    def by(attend):
        def loss(queries, key, sinks, shared):
            own = attend(queries, key, value, sinks)
            return weighted(own + attend(queries, key, value, shared))

        return jax.jit(jax.grad(loss, (0, 1, 2, 3)))(queries, key, sinks, to_jax(numbers(4)))

    def one(query, key, value, sinks):
        return fanano.attention(query, key, value, sinks=sinks)

    def mapped(queries, key, value, sinks):
        axes = (0, None, None, 0 if sinks.ndim == 2 else None)
        return jax.vmap(one, axes)(queries, key, value, sinks)

    def looped(queries, key, value, sinks):
        return jnp.stack([
            one(q, key, value, sinks[i] if sinks.ndim == 2 else sinks)
            for i, q in enumerate(queries)
        ])  # fmt: skip

    for x, y in zip(by(mapped), by(looped), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_checkpoint_scan_and_export():
    query, key, value = problem()
    expected = jax.jit(jax.grad(lambda q: weighted(fanano.attention(q, key, value))))(query)
    again = jax.checkpoint(lambda q: weighted(fanano.attention(q, key, value)))
    assert bits(jax.jit(jax.grad(again))(query)) == bits(expected)

    def step(carry, key):
        return carry + fanano.attention(query, key, value), None

    keys = jnp.stack([key, -key])
    out, _ = jax.lax.scan(step, jnp.zeros((2, 4, 5, 3)), keys)
    alone = [fanano.attention(query, k, value) for k in keys]
    assert bits(out) == bits(alone[0] + alone[1])
    compiled = jax.jit(fanano.jax.attention)
    check = jax.export.DisabledSafetyCheck.custom_call("fanano_attention")
    exported = jax.export.export(compiled, disabled_checks=[check])(query, key, value)
    assert bits(exported.call(query, key, value)) == bits(compiled(query, key, value))


def test_what_fanano_attention_takes_to_fanano_jax():
    """Whatever is traced: query, or one option alone."""
    arrays = problem()
    expected = bits(fanano.attention(*arrays, kv_lengths=[3, 7], is_causal=True))
    assert bits(jax.jit(fanano.attention, static_argnames="is_causal")(
        *arrays, kv_lengths=jnp.array([3, 7]), is_causal=True
    )) == expected  # fmt: skip
    by_lengths = jax.jit(lambda n: fanano.attention(*arrays, kv_lengths=n, is_causal=True))
    assert bits(by_lengths(jnp.array([3, 7]))) == expected
    assert by_lengths(jnp.array([-1, 100])).shape == (2, 4, 5, 3)  # clamped, and not refused


@pytest.mark.parametrize("rows", [5, 300])
def test_threads_are_no_part_of_the_bits(rows, threads):
    shapes = (2, 4, rows, 64), (2, 2, 500, 64), (2, 2, 500, 64)
    arrays = [to_jax(numbers(*s, seed=i)) for i, s in enumerate(shapes)]
    sinks = to_jax(numbers(4))

    @jax.jit
    def both(sinks, *arrays):
        def loss(sinks, *arrays):
            return weighted(fanano.jax.attention(*arrays, is_causal=True, sinks=sinks))

        return jax.value_and_grad(loss, (0, 1, 2, 3))(sinks, *arrays)

    found = []
    for n in 1, 2:
        threads(n)
        found.append([bits(x) for x in jax.tree.leaves(both(sinks, *arrays))])
    assert found[0] == found[1]


def test_a_gradient_that_nobody_asked_for_is_not_computed():
    query, key, value = problem()
    mask = to_jax(numbers(5, 7))

    def lowered(by):
        def loss(query, mask):
            return weighted(fanano.jax.attention(query, key, value, attn_mask=mask))

        return jax.jit(jax.grad(loss, by)).lower(query, mask).as_text()

    if jax.__version_info__ >= (0, 10):
        assert "dbias" not in lowered(0)
    assert "dbias" in lowered(1)


def test_eager_calls_are_compiled_once():
    query, key, value = problem()
    compiled = fanano.jax.calls._compiled
    fanano.jax.attention(query, key, value, q_offset=1, kv_lengths=[1, 2], is_causal=True)
    before = compiled._cache_size()
    for n in range(3):
        fanano.jax.attention(query, key, value, q_offset=n + 2, kv_lengths=[n, 3], is_causal=True)
    assert compiled._cache_size() == before


# ---- what is refused -----------------------------------------------------------------------------


def test_derivatives_that_are_not_there():
    query, key, value = problem()

    def loss(query):
        return (fanano.jax.attention(query, key, value) ** 2).sum()

    twice = "fanano's attention has no second derivative: differentiate it once"
    refused(NotImplementedError, twice, jax.grad(lambda q: jax.grad(loss)(q).sum()), query)
    refused(NotImplementedError, twice, jax.jvp, jax.grad(loss), (query,), (query,))
    refused(NotImplementedError, twice, jax.jit(jax.hessian(loss)), query)
    refused(TypeError, "can't apply forward-mode", jax.jvp, loss, (query,), (query,))

    def by(**options):
        ((name, x),) = options.items()
        return jax.grad(lambda x: fanano.jax.attention(query, key, value, **{name: x}).sum()), x

    refused(NotImplementedError, "a derivative by alibi_slopes was asked for, .*stop_gradient",
            *by(alibi_slopes=jnp.ones(4)))  # fmt: skip
    refused(TypeError, "scale must be a number while JAX traces.* or scale query", *by(scale=1.0))
    refused(TypeError, "softcap must be a number while JAX traces", *by(softcap=1.0))


REFUSED = {
    "heads": (ValueError, "query heads must be a multiple", {"query": jnp.ones((2, 3, 5, 6))}),
    "dtype": (TypeError, "key must have the dtype of query", {"key": jnp.ones((2, 2, 7, 6), "f2")}),
    "int32": (TypeError, "query must be float64, float32, .* it is int32",
               {"query": jnp.ones((2, 4, 5, 6), "i4")}),
    "rank": (ValueError, "query must have 2, 3 or 4 axes", {"query": jnp.ones(5)}),
    "layout": (ValueError, 'layout must be "bhsd" or "bshd"', {"layout": "?"}),
    "mask": (ValueError, "attn_mask must broadcast", {"attn_mask": jnp.ones((3, 7), bool)}),
    "integers": (TypeError, "attn_mask must be bool", {"attn_mask": jnp.ones((5, 7), int)}),
    "window": (TypeError, "window_size must be a pair", {"window_size": 3}),
    "scale": (ValueError, "scale must be a finite number", {"scale": float("nan")}),
    "softcap": (ValueError, "softcap must be a positive", {"softcap": -1.0}),
    "sinks": (ValueError, "sinks must have shape", {"sinks": jnp.ones(3)}),
    "slopes": (ValueError, "alibi_slopes must have shape", {"alibi_slopes": jnp.ones((3, 4))}),
    "lengths": (ValueError, "kv_lengths must have one number", {"kv_lengths": jnp.ones(3, int)}),
    "floats": (TypeError, "q_lengths must be int32 or int64", {"q_lengths": jnp.ones(2)}),
    "out_dtype": (ValueError, "out_dtype must be float32 for", {"out_dtype": "float16"}),
    "algorithm": (NotImplementedError, "only \"flash\" can be used", {"algorithm": "safe"}),
    "no algorithm": (ValueError, "algorithm must be", {"algorithm": "?"}),
    "dropout": (ValueError, "seed must be given, for JAX has no random", {"dropout_p": 0.5}),
    "out": (TypeError, "out must not be a JAX array", {"out": jnp.ones(3)}),
    "flag": (TypeError, "return_lse must be True or False", {"return_lse": 1}),
    "causal": (TypeError, "is_causal must be True or False", {"is_causal": 2}),
} if jax else {}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_xla(name):
    """While JAX traces, by fanano.attention; and eagerly, by fanano.jax."""
    exception, message, wrong = REFUSED[name]
    given = dict(zip(("query", "key", "value"), problem(), strict=True)) | wrong
    arrays = {k: x for k, x in given.items() if isinstance(x, jax.Array)}
    fixed = {k: x for k, x in given.items() if k not in arrays}
    refused(exception, message, fanano.jax.attention, **given)
    traced = jax.jit(lambda arrays: fanano.attention(**arrays, **fixed))
    refused(exception, message, traced, arrays)


def test_numbers_are_refused_where_they_are_seen():
    arrays = problem()
    refused(ValueError, "kv_lengths must be 0 to 7", fanano.jax.attention, *arrays,
            kv_lengths=jnp.array([1, 8]))  # fmt: skip
    slopes = jnp.array([1, 2, jnp.inf, 3])
    refused(ValueError, "slopes must be finite numbers; number 2 is inf", fanano.jax.attention,
            *arrays, alibi_slopes=slopes)  # fmt: skip
    traced = jax.jit(lambda s: fanano.attention(*arrays, alibi_slopes=s))
    with pytest.raises(Exception, match="slopes must be finite numbers; number 2 is inf"):
        jax.block_until_ready(traced(slopes))


def test_offsets_beyond_32_bits():
    """One for all is compiled in; of several JAX would keep the lower half."""
    arrays = problem()
    for offset in 2**40, -(2**40), 2**31:
        options = {"window_size": (None, -1), "is_causal": True, "q_offset": offset}
        got = fanano.jax.attention(*arrays, **options)
        assert bits(got) == bits(fanano.attention(*arrays, **options))
    refused(ValueError, "q_offset is .* JAX has no integers of more than 32 bits",
            fanano.jax.attention, *arrays, q_offset=[2**40, 0], is_causal=True)  # fmt: skip


def test_dot_product_attention_names_its_own_arguments():
    arrays = [jnp.swapaxes(x, 1, 2) for x in problem()]
    for exception, message, wrong in (
        (ValueError, "bias must broadcast", {"bias": jnp.ones((3, 7))}),
        (ValueError, "mask must broadcast", {"mask": jnp.ones((3, 7), bool)}),
        (TypeError, "mask must be boolean, it is float32; what", {"mask": jnp.ones((5, 7))}),
        (TypeError, "bias must be float64.* it is bool; True", {"bias": jnp.ones((5, 7), bool)}),
        (ValueError, "bias and mask must broadcast",
         {"bias": jnp.ones((5, 7)), "mask": jnp.ones((3, 7), bool)}),
        (ValueError, "query_seq_lengths must have one", {"query_seq_lengths": jnp.ones(3, int)}),
        (TypeError, "key_value_seq_lengths must be int", {"key_value_seq_lengths": jnp.ones(2)}),
        (ValueError, "local_window_size must be 0 or more", {"local_window_size": (-1, 2)}),
        (TypeError, "local_window_size must be a pair", {"local_window_size": "ab"}),
        (ValueError, "implementation must be None", {"implementation": "cudnn"}),
        (ValueError, "pass one", {"return_lse": True, "return_residual": True}),
        (ValueError, r"query must have the axes \(B, T, N, H\)", {"query": jnp.ones((5, 6))}),
    ):  # fmt: skip
        given = dict(zip(("query", "key", "value"), arrays, strict=True)) | wrong
        refused(exception, message, fanano.jax.dot_product_attention, **given)


def test_a_build_or_a_jaxlib_that_cannot(monkeypatch):
    """Nothing is registered then: a handler of too new an interface would end XLA's CPU backend."""
    from fanano.jax import operators

    registered = []
    monkeypatch.setattr(
        jax.ffi, "register_ffi_target", lambda *a, platform: registered.append((a[0], platform))
    )
    register = operators.register.__wrapped__
    for built, message in (
        ((0, 0), "this build of fanano has no handlers"),
        ((9, 0), r"speaks version 9\.0 .* the jaxlib here 0\.\d+"),
    ):
        monkeypatch.setattr(operators._core, "xla_version", lambda built=built: built)
        refused(NotImplementedError, message, register)
    assert registered == []
    monkeypatch.setattr(operators._core, "xla_version", lambda: (0, 1))
    register()
    platforms = ["cpu", "CUDA"] if fanano.build_info()["cuda"] else ["cpu"]
    assert sorted(registered) == sorted(
        (name, platform)
        for name in ("fanano_attention", "fanano_attention_backward")
        for platform in platforms
    )
