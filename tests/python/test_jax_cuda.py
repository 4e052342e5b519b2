"""JAX on a CUDA device, on a real one: compiled, differentiated, mapped and eager, by the judgement
of compare.py. The handlers alone are tested on the emulator (tests/cuda/xla_handlers_test.cpp)."""

from importlib.util import find_spec
from types import SimpleNamespace

import compare
import cuda_cases
import gpu
import numpy as np
import oracle_dropout
import pytest
from cases import Case
from jax_arrays import needs_jax, x64
from test_jax_attention import CASES, differentiated, narrowed, upstream

import fanano

try:
    import jax
    import jax.numpy as jnp

    import fanano.jax
except ModuleNotFoundError:
    jax = None

pytestmark = [pytest.mark.cuda, needs_jax]


@pytest.fixture(autouse=True)
def gpus():
    """Those of this machine; what a test makes is on the first."""
    try:
        devices = jax.devices("cuda")
    except RuntimeError as error:
        plugins = (find_spec(f"jax_cuda{version}_plugin") for version in (12, 13))
        left_out = gpu.none if any(plugins) else pytest.skip
        left_out(f"JAX has no CUDA device here: {str(error).splitlines()[0]}")
    with jax.default_device(devices[0]):
        yield devices


def there(x):
    return all(device.platform == "gpu" for device in x.devices())


def judge(case, options, call):
    out, lse = call(*case.arrays(), return_lse=True, out_dtype=case.out_dtype, **options)
    assert there(out)
    compare.judge_attention(
        np.asarray(out),
        np.asarray(lse),
        *case.arrays(),
        what=str(case),
        out_dtype=case.out_dtype,
        **options,
    )


@pytest.mark.parametrize("name", cuda_cases.OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_each_option(dtype, name):
    """Compiled with the arrays traced, and eager; every array is on the device."""
    case = Case(dtype, **cuda_cases.PLAIN | cuda_cases.OPTIONS[name])
    options = narrowed(case)

    def compiled(query, key, value, **options):
        arrays = {k: jnp.asarray(x) for k, x in options.items() if isinstance(x, np.ndarray)}
        fixed = {k: x for k, x in options.items() if k not in arrays}
        function = jax.jit(lambda given, more: fanano.attention(*given, **more, **fixed))
        return function([jnp.asarray(x) for x in (query, key, value)], arrays)

    def eager(query, key, value, **options):
        return fanano.attention(*(jnp.asarray(x) for x in (query, key, value)), **options)

    judge(case, options, compiled)
    judge(case, options, eager)


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("n", range(len(CASES)))
def test_each_problem_and_its_gradients(n, dtype):
    case = Case(dtype, **CASES[n])
    options = narrowed(case)
    with x64(dtype == "float64"):
        given, others, attend = differentiated(case, options)
        dout, dlse = upstream(case)

        @jax.jit
        def both(given, others, dout, dlse):
            found, pull = jax.vjp(lambda x: attend(x, others), given)
            return found, pull((dout.astype(found[0].dtype), dlse))[0]

        (out, lse), found = both(given, others, dout, dlse)
        again = both(given, others, dout, dlse)[1]
    assert there(out)
    for name, x in found.items():  # in a fixed order, always
        assert np.asarray(x).tobytes() == np.asarray(again[name]).tobytes(), name
    compare.judge_attention(
        np.asarray(out), np.asarray(lse), *case.arrays(), what=str(case), **options
    )
    names = {"query": "dq", "key": "dk", "value": "dv", "attn_mask": "dbias", "sinks": "dsinks"}
    got = dict.fromkeys(compare.GRADIENTS) | {names[k]: np.asarray(x) for k, x in found.items()}
    judgement = compare.GradientJudgement(str(case))
    judgement.add(
        SimpleNamespace(**got), *case.arrays(), *case.upstream()[:1],
        dlse=case.upstream()[1], **options,
    )  # fmt: skip
    judgement.verdict()


def arrays(rows=65, keys=130, heads=(2, 4, 2, 4), dtype="float16"):
    return [jnp.asarray(x) for x in Case(dtype, rows=rows, keys=keys, heads=heads).arrays()]


def test_it_is_in_the_order_of_the_program():
    """What comes before it in the program has been done, what comes after waits; memory that is
    donated or taken again meanwhile changes nothing."""
    query, key, value = arrays(rows=1024, keys=1024)

    @jax.jit
    def program(query, key, value, lengths):
        for _ in range(4):
            query = fanano.attention(query * 2, key, value, kv_lengths=lengths + 1) / 2
        return query

    lengths = jnp.array([1000, 7])
    with jax.disable_jit():
        expected = program(query, key, value, lengths)
    for _ in range(20):
        found = program(query, key, value, lengths)
        assert (found == expected).all()


def test_nothing_is_copied_to_the_host():
    query, key, value = arrays()
    lengths, sinks = jnp.array([130, 9]), jnp.zeros(4)
    function = jax.jit(lambda *x: fanano.attention(*x[:3], kv_lengths=x[3], sinks=x[4]))
    expected = function(query, key, value, lengths, sinks)
    with jax.transfer_guard("disallow"):
        found = function(query, key, value, lengths, sinks)
    assert (found == expected).all()


def test_wild_lengths():
    query, key, value = arrays()
    function = jax.jit(lambda n: fanano.attention(query, key, value, kv_lengths=n))
    found = function(jnp.array([2**31 - 1, -(2**31)]))
    assert (found == fanano.attention(query, key, value, kv_lengths=[130, 0])).all()


def test_mapped():
    query, key, value = (jnp.stack([x, x[::-1]]) for x in arrays())
    found = jax.vmap(fanano.attention)(query, key, value)
    for i in range(2):
        assert (found[i] == fanano.attention(query[i], key[i], value[i])).all()


def test_dropout():
    """The pairs of everywhere, by a seed that is traced."""
    case = Case("float16", rows=33, keys=65, heads=(2, 4, 2, 4))
    function = jax.jit(
        lambda given, seed, row: fanano.attention(
            *given, dropout_p=0.3, seed=seed, dropout_offset=(3, 1, row, 2), return_lse=True
        )
    )
    given = [jnp.asarray(x) for x in case.arrays()]
    for seed in (11, 2**32 - 5):
        out, lse = function(given, jnp.uint32(seed), jnp.uint32(7))
        keep = oracle_dropout.keep((2, 4, 33, 65), 0.3, seed, (3, 1, 7, 2))
        compare.judge_attention(
            np.asarray(out), np.asarray(lse), *case.arrays(), dropout_p=0.3, keep=keep
        )


def test_several_devices(gpus):
    if len(gpus) < 2:
        pytest.skip("there is one GPU alone")
    given = arrays()
    expected = np.asarray(fanano.attention(*given))
    second = [jax.device_put(x, gpus[1]) for x in given]
    found = fanano.attention(*second)
    assert found.devices() == {gpus[1]}
    assert (np.asarray(found) == expected).all()
    mesh = jax.sharding.Mesh(np.array(gpus[:2]), ("x",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    function = jax.jit(fanano.attention)
    compiled = function.lower(*(jax.device_put(x, spread) for x in given)).compile()
    assert "all-gather" not in compiled.as_text()
    found = compiled(*(jax.device_put(x, spread) for x in given))
    assert (np.asarray(found) == expected).all()


def test_on_the_cpu_beside():
    """The same compiled function, where the arrays are."""
    given = arrays(dtype="float32")
    function = jax.jit(fanano.attention)
    cpu = [jax.device_put(x, jax.devices("cpu")[0]) for x in given]
    found = function(*cpu)
    assert not there(found)
    assert (np.asarray(found) == fanano.attention(*(np.asarray(x) for x in given))).all()
    assert there(function(*given))


def test_what_is_refused():
    query, key, value = arrays()
    for call in (
        lambda: fanano.softmax(query),
        lambda: fanano.explain(query, key, value),
        lambda: fanano.attention_backward(query, query, key, value, query, query),
    ):
        with pytest.raises(NotImplementedError, match=r"is on .*jax.device_put"):
            call()
    with pytest.raises(NotImplementedError, match='only "flash"'):
        fanano.attention(query, key, value, algorithm="safe")
