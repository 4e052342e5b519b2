"""JAX's arrays, eagerly: the same bits, and results that are safe to keep."""

import gc
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from arrays import DTYPES, bits, numbers, problem
from jax_arrays import needs_jax, python, refused, to_jax, x64
from test_modes import FLUSH_AND_DENORMALS_ARE_ZERO, Modes, tiny_problem, x86

import fanano

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError:
    jax = None

pytestmark = needs_jax


@pytest.fixture
def arrays():
    return [to_jax(x) for x in problem()]


@pytest.fixture
def plain():
    return bits(fanano.attention(*problem()))


# ---- the same bits -------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["flash", "safe"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(dtype, algorithm):
    options = {"is_causal": True, "return_lse": True, "algorithm": algorithm}
    expected = fanano.attention(*problem(dtype), **options)
    with x64(dtype == "float64"):
        got = fanano.attention(*map(to_jax, problem(dtype)), **options)
        for mine, numpys in zip(got, expected, strict=True):
            assert type(mine) is type(jnp.zeros(1))
            assert mine.dtype == numpys.dtype
            assert mine.shape == numpys.shape
            assert bits(mine) == bits(numpys)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ladder(dtype):
    x = numbers(3, 50, dtype=dtype)
    lse = np.zeros(3, "float64" if dtype == "float64" else "float32")
    with x64(dtype == "float64"):
        x_, lse_ = to_jax(x), to_jax(lse)
        assert bits(fanano.softmax(x_, axis=0)) == bits(fanano.softmax(x, axis=0))
        assert fanano.SoftmaxState().absorb(x_[1]) == fanano.SoftmaxState().absorb(x[1])
        merged = fanano.merge_states(x_, lse_, x_, lse_)
        assert all(isinstance(m, jax.Array) for m in merged)
        assert [bits(m) for m in merged] == [bits(m) for m in fanano.merge_states(x, lse, x, lse)]
    query, key, value = problem(dtype)
    plan = fanano.explain(*map(to_jax, (query, key, value)), is_causal=True)
    assert str(plan) == str(fanano.explain(query, key, value, is_causal=True))


def test_views_and_empty_arrays(arrays, plain):
    rows_first = [x.swapaxes(1, 2) for x in arrays]
    out = fanano.attention(*rows_first, layout="bshd")
    assert bits(out.swapaxes(1, 2)) == plain
    for shapes in (((0, 4), (3, 4), (3, 5)), ((2, 4), (0, 4), (0, 5)), ((2, 4), (3, 4), (3, 0))):
        x = [np.ones(shape, np.float32) for shape in shapes]
        assert bits(fanano.attention(*map(to_jax, x))) == bits(fanano.attention(*x))


def test_a_layout_that_is_not_by_rows():
    layout = pytest.importorskip("jax.experimental.layout")
    if not hasattr(layout, "Format"):
        pytest.skip("this JAX names its layouts otherwise")
    x = numbers(3, 50)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    x_ = jax.device_put(x, layout.Format(layout.Layout(major_to_minor=(1, 0)), sharding))
    assert np.from_dlpack(x_).strides == (4, 12)
    assert bits(fanano.softmax(x_)) == bits(fanano.softmax(x))


def test_lengths_come_from_jax(arrays):
    options = {"kv_lengths": [3, 40], "q_lengths": [33, 7], "q_offset": [0, 2]}
    expected = bits(fanano.attention(*problem(), **options))
    for dtype in (np.int32, np.int64):
        given = {name: to_jax(np.array(n, dtype)) for name, n in options.items()}
        assert bits(fanano.attention(*arrays, **given)) == expected
        assert bits(fanano.attention(*problem(), **given)) == expected
    assert bits(fanano.attention(*arrays, scale=jnp.float32(0.5))) == bits(
        fanano.attention(*problem(), scale=0.5)
    )


def test_masks_slopes_and_sinks_come_from_jax(arrays):
    seen = numbers(33, 40) > -1
    given = {
        "attn_mask": [seen, numbers(2, 1, 33, 1), numbers(4, 1, 40, dtype="bfloat16")],
        "alibi_slopes": [numbers(4), numbers(2, 4, dtype="float16")],
        "sinks": [numbers(4)],
    }
    for option, values in given.items():
        for value in values:
            expected = bits(fanano.attention(*problem(), **{option: value}))
            assert bits(fanano.attention(*arrays, **{option: to_jax(value)})) == expected
            assert bits(fanano.attention(*problem(), **{option: to_jax(value)})) == expected
    plan = fanano.explain(*arrays, attn_mask=to_jax(seen))
    assert str(plan) == str(fanano.explain(*problem(), attn_mask=seen))


def test_out_dtype():
    narrow = [to_jax(x) for x in problem("bfloat16")]
    out = fanano.attention(*narrow, out_dtype=jnp.float32)
    assert out.dtype == jnp.float32
    assert bits(out) == bits(fanano.attention(*problem("bfloat16"), out_dtype="float32"))


def test_arrays_that_are_still_being_computed():
    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ x), x)

    x = to_jax(numbers(400, 400))
    expected = bits(fanano.softmax(np.asarray(slow(x))))
    assert bits(fanano.softmax(slow(x))) == expected


@x86
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_denormals_in_a_callback(dtype):
    """Compiled JAX flushes them in its threads, in which callbacks run."""
    arrays = tiny_problem(dtype)
    expected = fanano.attention(*arrays)
    modes = []

    def called(*x):
        modes.append(Modes.now().mxcsr)
        return fanano.attention(*x)

    result = jax.ShapeDtypeStruct(expected.shape, expected.dtype)
    compiled = jax.jit(lambda *x: jax.pure_callback(called, result, *x))
    assert bits(compiled(*map(to_jax, arrays))) == bits(expected)
    assert modes[0] & FLUSH_AND_DENORMALS_ARE_ZERO == FLUSH_AND_DENORMALS_ARE_ZERO


def test_denormals_that_torch_flushes():
    arrays = tiny_problem("float32")
    expected, arrays = bits(fanano.attention(*arrays)), [to_jax(x) for x in arrays]
    try:
        assert torch.set_flush_denormal(True)
        out = fanano.attention(*arrays)
    finally:
        torch.set_flush_denormal(False)
    assert bits(out) == expected


# ---- results are safe ----------------------------------------------------------------------------


def test_results_are_nobody_elses(arrays, plain):
    results = [fanano.attention(*arrays) for _ in range(20)]
    assert len({x.unsafe_buffer_pointer() for x in results}) == 20
    kept = results.pop()
    del results
    gc.collect()
    for _ in range(20):
        fanano.attention(*(-x for x in arrays))
    assert bits(kept) == plain


def test_results_are_handed_over_and_not_copied(monkeypatch):
    made = []

    def from_dlpack(buffer, **options):
        made.append(np.from_dlpack(buffer).ctypes.data)
        return original(buffer, **options)

    original = jax.dlpack.from_dlpack
    monkeypatch.setattr(jax.dlpack, "from_dlpack", from_dlpack)
    out = fanano.softmax(to_jax(numbers(3, 50)))
    assert [out.unsafe_buffer_pointer()] == made


def test_results_can_be_donated(arrays, plain):
    out = fanano.attention(*arrays)
    twice = jax.jit(lambda x: x * 2, donate_argnums=0)(out)
    assert bits(twice / 2) == plain
    assert out.is_deleted()


def test_inputs_are_kept_while_they_are_read_and_no_longer(arrays):
    before = [sys.getrefcount(x) for x in arrays]
    for _ in range(3):
        out = fanano.attention(*arrays, return_lse=True, kv_lengths=to_jax(np.array([1, 2])))[0]
        refused(ValueError, "layout", fanano.attention, *arrays, layout="?")
    assert sys.getrefcount(out) == sys.getrefcount(to_jax(np.ones(2)))
    del out
    gc.collect()
    assert [sys.getrefcount(x) for x in arrays] == before


def test_memory_is_given_back():
    program = """
    import resource
    import jax.numpy as jnp
    import fanano

    x = jnp.ones((256, 1024))  # 1 MiB
    def peak():
        for _ in range(100):
            fanano.softmax(x)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = peak()
    assert peak() - before < 50 * 1024
    """
    python(program)


def test_a_result_in_use_while_python_ends():
    """JAX gives memory back in threads of its own, which must not need Python for it."""
    program = """
    import jax, jax.numpy as jnp
    import fanano

    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 60, lambda _, x: jnp.tanh(x @ x), x)

    slow(fanano.softmax(jnp.ones((800, 800))))
    """
    python(program)


def test_bfloat16_is_that_of_ml_dtypes():
    out = fanano.softmax(jnp.zeros((2, 4), jnp.bfloat16))
    assert np.asarray(out).dtype == ml_dtypes.bfloat16
