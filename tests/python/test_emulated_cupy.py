"""CuPy's arrays on a device: their adapter, with a stand-in for CuPy in the emulator's memory. What
only CuPy itself and a GPU can show is in test_cupy.py."""

from types import SimpleNamespace

import compare
import cupy_stand_in
import emulated
import numpy as np
import pytest
from cases import Case
from cuda_cases import OPTIONS, PADDED, PLAIN
from emulated import Array
from refusals import refuses

import fanano

pytestmark = emulated.needs_emulator

HERE = 3  # the device, of four, on which arrays are


class ndarray(Array):
    """On a device that it names as CuPy does. It lends as CuPy before 14: without flags."""

    def __init__(self, array, *, fill=True, device=HERE):
        super().__init__(array, device, fill=fill, versioned=False)
        self.device = SimpleNamespace(id=device)

    def __dlpack_device__(self):
        return 2, self.device.id


def empty(shape, dtype):
    made.append(ndarray(np.empty(shape, dtype), fill=False, device=cupy_stand_in.Device.current))
    return made[-1]


made = []  # by empty(), in this test


@pytest.fixture(autouse=True)
def cupy():
    made.clear()
    with (
        emulated.machine(devices=4),
        cupy_stand_in.imported(ndarray, empty, streams=[0, 0, 0, 7]) as module,
    ):
        yield module


def attention(case, **more):
    options = dict(case.options) | more
    return fanano.attention(
        *(ndarray(x) for x in case.arrays()),
        **{name: ndarray(x) if isinstance(x, np.ndarray) else x for name, x in options.items()},
        algorithm=case.algorithm,
        out_dtype=case.out_dtype,
        return_lse=True,
    )


@pytest.mark.parametrize("algorithm", ["flash", "naive"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_dtype(dtype, algorithm):
    case = Case(dtype, algorithm=algorithm, **PLAIN)
    out, lse = attention(case)
    assert type(out) is type(lse) is ndarray
    assert out.device.id == lse.device.id == HERE
    compare.judge_attention(out.numpy(), lse.numpy(), *case.arrays(), **case.options)


@pytest.mark.parametrize(
    "name", ["lengths", "offsets", "slopes", "sinks", "mask", "bias", "partial"]
)
def test_options_are_left_on_the_device(name):
    """As they are: lengths and the like in NumPy's own dtypes."""
    case = Case("float16", **PLAIN | OPTIONS[name])
    emulated.calls()
    out, lse = attention(case)
    calls = [call for call, *_ in emulated.calls()]
    assert not [
        call for call in calls if "upload_kernel" in call or "Sync" in call or "Memcpy" in call
    ]
    compare.judge_attention(
        out.numpy(), lse.numpy(), *case.arrays(), out_dtype=case.out_dtype, **case.options
    )


def test_stream_pool_and_device():
    """All is on the current stream of the arrays' device, and all memory is CuPy's; the current
    devices, CuPy's and CUDA's, are as before."""
    case = Case("float16", **PLAIN | PADDED)
    query, key, value = (ndarray(x) for x in case.arrays())
    offsets = ndarray(np.array([60, 3], np.int32))
    emulated.calls()
    out = fanano.attention(query, key, value, kv_lengths=[5, 67], q_offset=offsets)
    calls = emulated.calls()
    assert all(x.asked["stream"] == 7 for x in (query, key, value, offsets))
    launches = [(device, stream) for name, device, stream in calls if "_kernel" in name]
    assert launches == [(HERE, 7)] * 3  # of the lengths, of the offsets, and attention's
    assert not [name for name, *_ in calls if "Async" in name or "Event" in name or "Sync" in name]
    result, workspace = made
    assert result is out
    assert workspace.array.dtype == np.float64
    assert {x.device.id for x in made} == {HERE}
    assert cupy_stand_in.Device.current == 0
    assert "cudaSetDevice" not in [name for name, *_ in calls]


def test_gradients():
    """As attention: all on the arrays' device and its current stream, all memory CuPy's."""
    more = {"heads": (2, 2, 1, 4), "mask": "float32 (Sq, Sk)", "sinks": True}
    case = Case("float16", **PLAIN | more)
    options = {"kv_lengths": np.array([5, 67], np.int32), **case.options}
    there = {name: ndarray(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
    query, key, value = given = [ndarray(x) for x in case.arrays()]
    dout, dlse = (ndarray(x) for x in case.upstream())
    out, lse = fanano.attention(*given, return_lse=True, **there)
    made.clear(), emulated.calls()
    got = fanano.attention_backward(
        dout, query, key, value, out, lse, dlse=dlse, grad_mask=True, **there
    )
    calls = emulated.calls()
    assert all(x.asked["stream"] == 7 for x in (*given, dout, dlse, out, lse, there["attn_mask"]))
    assert {(device, stream) for name, device, stream in calls if "_kernel" in name} == {(HERE, 7)}
    assert not [name for name, *_ in calls if "Async" in name or "Event" in name or "Sync" in name]
    *results, workspace = made
    assert all(x is y for x, y in zip(results, got, strict=True))
    assert workspace.array.dtype == np.float64
    assert {x.device.id for x in made} == {HERE}
    assert cupy_stand_in.Device.current == 0
    judgement = compare.GradientJudgement(str(case))
    dout, dlse = case.upstream()
    got = fanano.Gradients(*(x.numpy() for x in got))
    assert all(x.any() for x in got)
    judgement.add(got, *case.arrays(), dout, dlse=dlse, **options)
    judgement.verdict()
    assert (got.dbias.dtype, got.dsinks.dtype) == (np.float32, np.float32)


def test_the_default_stream():
    query, key, value = (ndarray(x, device=1) for x in Case("float16", **PLAIN).arrays())
    fanano.attention(query, key, value)
    assert query.asked["stream"] == 1


def test_out():
    """Whether it may be written, CuPy says from version 14 on; before, it is not known."""
    case = Case("float16", **PLAIN)
    query, key, value = (ndarray(x) for x in case.arrays())
    expected = fanano.attention(query, key, value)
    out = ndarray(np.empty_like(expected.array), fill=False)
    refuses(lambda: fanano.attention(query, key, value, out=out), "unflagged", "leave out away")
    out.versioned = True
    assert fanano.attention(query, key, value, out=out) is out
    assert out.numpy().tobytes() == expected.numpy().tobytes()


def test_what_is_refused(cupy):
    x = ndarray(np.ones((1, 1, 4, 8), np.float32))
    words = "{} is a CuPy array, on device 3: of fanano only attention and its .*; cupy.asnumpy"
    numpys = x.array
    lengths = ndarray(np.ones(1, np.int64))
    for argument, call in {
        "x": lambda: fanano.softmax(x),
        "scores": lambda: fanano.SoftmaxState().absorb(x),
        "out_a": lambda: fanano.merge_states(x, x, x, x),
        "query": lambda: fanano.explain(x, x, x),
    }.items():
        with pytest.raises(NotImplementedError, match=words.format(argument)):
            call()
    elsewhere = "must be (on the device of query, CPU|in the CPU's memory); it is on .*CUDA:3"
    for call in (
        lambda: fanano.attention(numpys, numpys, numpys, attn_mask=x),
        lambda: fanano.attention(numpys, numpys, numpys, kv_lengths=lengths),
    ):
        with pytest.raises(ValueError, match=elsewhere):
            call()
    with pytest.raises(TypeError, match="key must be of the same library as query, cupy"):
        fanano.attention(x, numpys, x)

    class Masked(ndarray):
        pass

    with pytest.raises(TypeError, match=r"query is a .*Masked; only plain CuPy arrays"):
        fanano.attention(Masked(numpys), x, x)
