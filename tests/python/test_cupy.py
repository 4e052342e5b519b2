"""CuPy's arrays: where no device can run, and on a GPU. Their adapter is tested on the emulator,
with a stand-in for CuPy (test_emulated_cupy.py)."""

import compare
import cuda_cases
import cupy_stand_in
import gpu
import numpy as np
import pytest
from cases import Case
from lender import Lender
from refusals import good, refuses
from test_device_errors import goes_on, on_device

import fanano

# ---- without ------------------------------------------------------------------------------------


@goes_on
def test_no_device_can_run():
    class ndarray(Lender):
        """Memory that nobody may touch."""

        def __init__(self, array):
            super().__init__(array, device=Pair((2, 0)), **on_device(array).said)

    arrays = {name: ndarray(x) for name, x in good().items()}
    with cupy_stand_in.imported(ndarray, streams=[0]):
        refuses(lambda: fanano.attention(**arrays), "no_cuda", "cannot run on a CUDA device")


class Pair(tuple):
    """CuPy's name of a device, and DLPack's."""

    id = 0


# ---- on a GPU -----------------------------------------------------------------------------------


@pytest.fixture
def cupy():
    module = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not module.cuda.is_available():
        gpu.none("there is no GPU that CuPy can use")
    return module


def attention(cupy, case, send=lambda options: options, **more):
    def sent(x):
        return cupy.asarray(x) if isinstance(x, np.ndarray) else x

    return fanano.attention(
        *(sent(x) for x in case.arrays()),
        **{name: sent(x) for name, x in send(dict(case.options)).items()},
        algorithm=case.algorithm,
        out_dtype=case.out_dtype,
        return_lse=True,
        **more,
    )


def judge(cupy, case, send=lambda options: options):
    out, lse = attention(cupy, case, send)
    assert type(out) is type(lse) is cupy.ndarray
    compare.judge_attention(
        cupy.asnumpy(out),
        cupy.asnumpy(lse),
        *case.arrays(),
        what=str(case),
        out_dtype=case.out_dtype,
        **case.options,
    )


@pytest.mark.cuda
@pytest.mark.parametrize("algorithm", ["flash", "online", "safe", "naive"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_each_dtype_and_algorithm(cupy, dtype, algorithm):
    sizes = {"rows": 197, "keys": 389, "heads": (2, 4, 2, 4)}
    judge(cupy, Case(dtype, algorithm=algorithm, where="causal", data="growing", **sizes))


@pytest.mark.cuda
@pytest.mark.parametrize("send", [cuda_cases.host_numbers, lambda options: options])
@pytest.mark.parametrize("name", cuda_cases.OPTIONS)
def test_each_option(cupy, name, send):
    judge(cupy, Case("float16", **cuda_cases.PLAIN | cuda_cases.OPTIONS[name]), send)


@pytest.mark.cuda
def test_the_current_stream(cupy):
    """What it has been given to do before comes first, and nobody waits."""
    case = Case("float16", rows=65, keys=130, heads=(2, 4, 2, 4))
    query, key, value = (cupy.asarray(x) for x in case.arrays())
    expected = fanano.attention(query, key, value, kv_lengths=[130, 7])
    late = cupy.zeros_like(query)
    lengths = cupy.asarray([1, 1])
    wanted = cupy.asarray([130, 7])
    busy = cupy.random.rand(4096, 4096, dtype=cupy.float32)
    cupy.cuda.Device().synchronize()
    side = cupy.cuda.Stream(non_blocking=True)

    def attend():
        late[...] = query
        lengths[...] = wanted
        return fanano.attention(late, key, value, kv_lengths=lengths)

    with side:
        busy @ busy, attend()  # what is made at the first call alone may wait: memory, kernels
        late[...] = 0
        lengths[...] = 1
        side.synchronize()
        for _ in range(20):
            busy @ busy
        out = attend()
        assert not side.done
    side.synchronize()
    assert (out == expected).all()


@pytest.mark.cuda
def test_graphs(cupy):
    """Captured once; replayed with other numbers, lengths too."""
    arrays = Case("float16", rows=65, keys=130, heads=(2, 4, 2, 4)).arrays()
    query, key, value = (cupy.asarray(x) for x in arrays)
    lengths = cupy.asarray([130, 7])
    side = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with side:
        fanano.attention(query, key, value, kv_lengths=lengths)  # the pool has its memory now
        side.synchronize()
        side.begin_capture()
        out = fanano.attention(query, key, value, kv_lengths=lengths)
        graph = side.end_capture()
        lengths[...] = cupy.asarray([9, 64])
        query *= -1
        graph.launch(side)
    side.synchronize()
    assert (out == fanano.attention(query, key, value, kv_lengths=[9, 64])).all()


@pytest.mark.cuda
def test_memory_is_the_pools(cupy):
    query, key, value = (cupy.asarray(x) for x in Case("float16", rows=65, keys=130).arrays())
    pool = cupy.get_default_memory_pool()
    out = fanano.attention(query, key, value, kv_lengths=[130] * len(query))
    before = pool.used_bytes()
    for _ in range(3):
        out = fanano.attention(query, key, value, kv_lengths=[130] * len(query))
    assert pool.used_bytes() == before
    del out
    assert pool.used_bytes() < before


@pytest.mark.cuda
def test_another_device(cupy):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU alone")
    arrays = Case("float16", rows=65, keys=130).arrays()
    expected = fanano.attention(*(cupy.asarray(x) for x in arrays))
    with cupy.cuda.Device(1):
        there = [cupy.asarray(x) for x in arrays]
    out = fanano.attention(*there)
    assert out.device.id == 1
    assert (cupy.asnumpy(out) == cupy.asnumpy(expected)).all()
    assert cupy.cuda.Device().id == 0


@pytest.mark.cuda
def test_everything_else_is_the_cpus(cupy):
    x = cupy.ones((4, 8), cupy.float32)
    with pytest.raises(NotImplementedError, match=r"x is a CuPy array, .* cupy.asnumpy\(x\)"):
        fanano.softmax(x)
