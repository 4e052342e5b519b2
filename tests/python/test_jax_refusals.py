"""JAX's arrays that are refused: what cannot be traced, and what cannot be read or written."""

import numpy as np
import pytest
from arrays import bits, numbers, problem
from jax_arrays import needs_jax, python, refused, to_jax, x64

import fanano
from fanano.adapters import Watched  # a NotImplementedError

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


# ---- what cannot be traced -----------------------------------------------------------------------

# attention can: test_jax_transforms.py.
CALLS = {
    "softmax": fanano.softmax,
    "merge": lambda x: fanano.merge_states(x, x[:, 0], x, x[:, 0])[0],
    "explain": lambda x: fanano.explain(x, x, x),
    "absorb": lambda x: fanano.SoftmaxState().absorb(x[0]),
    "backward": lambda x: fanano.attention_backward(x, x, x, x, x, x[:, 0]),
}
ARGUMENT = {"softmax": "x", "merge": "out_a", "absorb": "scores"}
TRACES = {
    "jit": lambda f, x: jax.jit(f)(x),
    "vmap": lambda f, x: jax.vmap(f)(x[None]),
    "grad": lambda f, x: jax.grad(lambda x: f(x).sum())(x),
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "linearize": lambda f, x: jax.linearize(f, x),
    "eval_shape": lambda f, x: jax.eval_shape(f, x),
    "scan": lambda f, x: jax.lax.scan(lambda carry, x: (carry, f(x)), 0, x[None]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trace", TRACES)
def test_tracers(trace, call):
    message = f"^{ARGUMENT.get(call, 'query')} is traced: .* only attention can be.* outside"
    x = jnp.ones((4, 8))
    refused(Watched, message, TRACES[trace], CALLS[call], x)
    CALLS[call](x)


OPTIONS = ["attn_mask", "alibi_slopes", "sinks", "q_offset", "q_lengths", "kv_lengths"]


@pytest.mark.parametrize("option", OPTIONS)
def test_traced_options_beside_arrays_of_another_library(option):
    call = jax.jit(lambda n: fanano.attention(*problem(), **{option: n}))
    refused(Watched, f"^{option} is traced", call, jnp.array([3, 7]))


def test_traced_arrays_beside_arrays_of_another_library():
    query, key, value = problem()
    call = jax.jit(lambda key: fanano.attention(query, key, value))
    message = "key must be of the same library as query, numpy; it is of jax"
    refused(TypeError, message, call, key)


def test_constants_of_a_compiled_function(arrays, plain):
    zeros = jnp.zeros((2, 4, 33, 24))
    assert bits(jax.jit(lambda x: x + fanano.attention(*arrays))(zeros)) == plain


def test_without_compilation(arrays, plain):
    with jax.disable_jit():
        assert bits(jax.jit(fanano.attention)(*arrays)) == plain


# ---- what cannot be read or written --------------------------------------------------------------


def test_jax_arrays_are_never_written(arrays):
    out = jnp.full((2, 4, 33, 24), 7.0)
    message = "out must not be a JAX array, these never change; leave out away"
    refused(TypeError, message, fanano.attention, *arrays, out=out)
    of_another = "out must be of the same library as query, numpy; it is of jax"
    refused(TypeError, of_another, fanano.attention, *problem(), out=out)
    assert (out == 7).all()


def test_other_libraries(arrays):
    query, key, value = arrays
    message = "key must be of the same library as query, jax; it is of numpy"
    refused(TypeError, message, fanano.attention, query, np.asarray(key), value)


def test_deleted_arrays(arrays):
    query, key, value = arrays
    jax.jit(lambda x: x * 2, donate_argnums=0)(key)
    message = "key has been deleted: it was donated"
    refused(ValueError, message, fanano.attention, query, key, value)
    refused(ValueError, message.replace("key", "x"), fanano.softmax, key)
    lengths = jnp.array([1, 2])
    lengths.delete()
    for option in OPTIONS:
        refused(ValueError, f"^{option} has been deleted", fanano.attention, query, query, query,
                **{option: lengths})  # fmt: skip


def test_float64_while_x64_is_off():
    numpys = numbers(8, dtype="float64")
    x = to_jax(numpys)
    with x64(False):
        assert x.dtype == "float64"
        refused(ValueError, "makes no float64 arrays while x64 is off", fanano.softmax, x)
        assert fanano.SoftmaxState().absorb(x) == fanano.SoftmaxState().absorb(numpys)


NARROW = ["int4", "uint4", "int8", "int32", "complex64", "float8_e4m3fn", "float8_e5m2"]


@pytest.mark.parametrize("dtype", [*NARROW, "float4_e2m1fn", "float8_e8m0fnu"])
def test_dtypes(dtype, arrays):
    if not hasattr(jnp, dtype):
        pytest.skip(f"this JAX has no {dtype}")
    x = jnp.zeros(2, dtype)
    refused(TypeError, f"^x (must be .* it is|of dtype) {dtype}", fanano.softmax, x)
    message = f"^kv_lengths (must be int32 or int64; it is|of dtype) {dtype}"
    if dtype != "int32":
        refused(TypeError, message, fanano.attention, *arrays, kv_lengths=x)


def test_what_is_no_array_of_numbers(arrays):
    query, key, _ = arrays
    secret = jax.random.key(0)
    refused(TypeError, "value must be an array of numbers, its dtype is key<", fanano.attention,
            query, key, secret)  # fmt: skip
    if hasattr(jax, "new_ref"):
        refused(TypeError, "x must be an array .* got Ref", fanano.softmax, jax.new_ref(query))


def test_several_devices():
    program = """
    import os
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    import fanano

    x = jnp.arange(32, dtype=jnp.float32).reshape(4, 8)
    expected = np.asarray(fanano.attention(x, x, x))
    for device in jax.devices():
        y = jax.device_put(x, device)
        out, lse = fanano.attention(y, x, x, return_lse=True)
        assert out.devices() == lse.devices() == {device}
        assert (np.asarray(out) == expected).all()
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    for spec in (PartitionSpec("rows"), PartitionSpec()):
        y = jax.device_put(x, NamedSharding(mesh, spec))
        for argument, call in {
            "key": lambda: fanano.attention(x, y, x),
            "x": lambda: fanano.softmax(y),
            "kv_lengths": lambda: fanano.attention(x, x, x, kv_lengths=y[:1, 0].astype(int)),
        }.items():
            try:
                call()
            except ValueError as error:
                assert f"{argument} is spread over 2 devices" in str(error), error
            else:
                raise AssertionError(argument)
    gathered = jax.device_put(y, jax.devices("cpu")[0])
    assert (np.asarray(fanano.attention(gathered, x, x)) == expected).all()
    """
    python(program)
