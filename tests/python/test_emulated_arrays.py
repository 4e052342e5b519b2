"""Attention on CUDA arrays of libraries that fanano knows through DLPack alone, on the emulator:
the stream, who makes results and workspaces, and small arrays of every kind they may have."""

import ctypes

import compare
import emulated
import ml_dtypes
import numpy as np
import pytest
from cases import Case
from cuda_cases import OPTIONS, PADDED, PLAIN, host_numbers
from emulated import Array
from lender import ManagedVersioned
from refusals import refuses

import fanano
from fanano import _core

pytestmark = emulated.needs_emulator

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = [ctypes.py_object, ctypes.c_char_p]


class Taken:
    """What a library makes of memory that it takes over."""

    def __init__(self, x, stream):
        self.device = x.__dlpack_device__()
        capsule = x.__dlpack__(stream=stream, max_version=(1, 3))
        at = _pointer(capsule, b"dltensor_versioned")
        _rename(capsule, b"used_dltensor_versioned")
        self._managed = ManagedVersioned.from_address(at)
        tensor = self._managed.tensor
        self.shape = tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.shape or at))
        self.address, self.kind = tensor.data, (tensor.code, tensor.bits)

    def numpy(self):
        kinds = {(2, 64): "f8", (2, 32): "f4", (2, 16): "f2", (4, 16): ml_dtypes.bfloat16}
        host = np.empty(self.shape, kinds[self.kind])
        assert emulated._copy_out(host.ctypes.data, self.address, host.nbytes)
        return host

    def __del__(self):
        give_back = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._managed.deleter)
        give_back(ctypes.addressof(self._managed))


class Standard(Array):
    """An array of the array API standard, whose library works on a stream."""

    stream = 7

    def __array_namespace__(self):
        return type(self)

    @classmethod
    def from_dlpack(cls, x):
        return Taken(x, cls.stream)


def run(case, options, **more):
    found = fanano.attention(
        *(Standard(x) for x in case.arrays()),
        **{name: Standard(x) if isinstance(x, np.ndarray) else x for name, x in options.items()},
        algorithm=case.algorithm,
        out_dtype=case.out_dtype,
        return_lse=True,
        **more,
    )
    assert all(type(x) is Taken and x.device == (2, 0) for x in found)
    return tuple(x.numpy() for x in found)


@pytest.mark.parametrize("algorithm", ["flash", "safe"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_dtype(dtype, algorithm):
    """The workspace and the results are ours, whatever the algorithm."""
    case = Case(dtype, algorithm=algorithm, **PLAIN)
    out, lse = run(case, case.options)
    compare.judge_attention(out, lse, *case.arrays(), what=str(case), **case.options)


# Small arrays that kernels do not read as they are.
KINDS = {
    "narrow": {np.int64: np.int32, np.float64: np.float32},
    "16 bits": {np.int64: np.int32, np.float64: ml_dtypes.bfloat16},
    "half": {np.int64: np.int64, np.float64: np.float16},
    "as kernels read them": {np.int64: np.int64, np.float64: np.float64},
}


def of_kind(options, kinds, steps):
    """Lengths, offsets, slopes and sinks of these dtypes, each `steps` from the next."""

    def made(x):
        dtype = kinds[np.float64 if x.dtype.kind == "f" else np.int64]
        spread = np.full((*x.shape[:-1], x.shape[-1] * abs(steps)), 99, dtype)[..., ::steps]
        spread[...] = x
        return spread

    small = "q_lengths", "kv_lengths", "q_offset", "alibi_slopes", "sinks"
    return {
        name: made(x) if name in small and isinstance(x, np.ndarray) else x
        for name, x in options.items()
    }


@pytest.mark.parametrize("steps", [1, -3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lengths", "offsets", "slopes", "sinks"])
def test_small_arrays_on_the_device(name, kind, steps):
    """Of every dtype and stride: they have the bits of the host's numbers."""
    case = Case("float16", **PLAIN | OPTIONS[name])
    given = of_kind(case.options, KINDS[kind], steps)
    numbers = {name: x.astype(float) if isinstance(x, np.ndarray) and x.dtype.kind not in "iub"
               else x for name, x in given.items()}  # fmt: skip
    expected = run(case, host_numbers(numbers))
    emulated.calls()
    found = run(case, given)
    assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]
    made = [call for call, *_ in emulated.calls() if "widen" in call]
    wide = np.dtype(KINDS[kind][np.float64 if name == "slopes" else np.int64]).itemsize == 8
    assert bool(made) != (wide and steps == 1 and name != "sinks")  # these are bounded besides


def test_one_number_for_all():
    case = Case("float16", **PLAIN | PADDED)
    numbers = {"q_offset": 60, "kv_lengths": 50, "alibi_slopes": 0.5, "sinks": 1.5}
    expected = run(case, case.options | numbers)
    arrays = {
        "q_offset": np.array(60, np.int32),
        "kv_lengths": np.array(50),
        "alibi_slopes": np.array(0.5),
        "sinks": np.array(1.5, np.float32),
    }
    found = run(case, case.options | arrays)
    assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]


@pytest.mark.parametrize("seed", [np.array(11), np.array(-7, np.int32), np.array(2**62 + 5)])
def test_seeds(seed):
    """As the number that it is, whatever its bits."""
    case = Case("float16", **PLAIN)
    found = run(case, case.options | {"seed": seed, "dropout_p": 0.4})
    expected = run(case, case.options | {"seed": int(seed), "dropout_p": 0.4})
    assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]


def test_large_sinks_stay_finite():
    """As the host's do: of the largest float64 the sum would be infinite."""
    case = Case("float32", **PLAIN)
    for sinks in (-np.inf, 1e300, -1e300, 3e38):
        options = case.options | {"sinks": np.array([sinks, sinks])}
        expected = run(case, host_numbers(options))
        found = run(case, options)
        assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]


def test_wild_lengths_of_32_bits():
    case = Case("float16", **PLAIN | PADDED)
    wild = {"kv_lengths": np.array([2**31 - 1, -(2**31)], np.int32)}
    found = run(case, case.options | wild)
    expected = run(case, case.options | {"kv_lengths": [67, 0]})
    assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]


def test_checked(monkeypatch):
    """FANANO_CHECK=1: what is on the device is looked at, and refused in the host's words."""
    monkeypatch.setenv("FANANO_CHECK", "1")
    case = Case("float16", **PLAIN | PADDED)

    def call(**options):
        return run(case, case.options | options)

    good = {"kv_lengths": np.array([67, 9], np.int32), "sinks": np.array([-np.inf], np.float32)}
    emulated.calls()
    found = call(**good)
    made = [name for name, *_ in emulated.calls()]
    assert made.count("cudaStreamSynchronize") == 2
    expected = call(kv_lengths=[67, 9], sinks=[-np.inf])
    assert [x.tobytes() for x in found] == [x.tobytes() for x in expected]
    for rule, message, options in (
        ("lengths", "kv_lengths must be 0 to 67, .* number 1 is 68",
         {"kv_lengths": np.array([3, 0, 68], np.int32)[::2]}),
        ("length", "q_lengths must be 0 to 9, .* it is -1", {"q_lengths": np.array(-1)}),
        ("slope", "number 0 is inf", {"alibi_slopes": np.array([np.inf], np.float16)}),
        ("sink", "number 0 is nan", {"sinks": np.array([np.nan])}),
    ):  # fmt: skip
        refuses(lambda options=options: call(**options), rule, message)


# ---- streams and memory --------------------------------------------------------------------------


def arrays(device=0):
    case = Case("float16", rows=4, keys=5, heads=(1, 1, 1, 4))
    return [Standard(x, device) for x in case.arrays()]


def named(made, word):
    return [(name, device, stream) for name, device, stream in made if word in name]


@pytest.mark.parametrize(
    ("library", "waits"), [(7, True), (2, True), (1, False), (None, False), (-1, False)]
)
def test_the_library_waits_for_its_result(library, waits, monkeypatch):
    """All is on the legacy default stream; the library's own comes after it from then on."""
    monkeypatch.setattr(Standard, "stream", library)
    with emulated.machine(devices=2):
        query, key, value = arrays(1)
        emulated.calls()
        out = fanano.attention(query, key, value, kv_lengths=[3], algorithm="safe")
        made = emulated.calls()
        assert all(x.asked["stream"] == 1 for x in (query, key, value))
        assert all(x.returned == 1 for x in (query, key, value))
        launches = named(made, "_kernel")
        assert len(launches) == 4  # of the length; scores, probabilities and products
        assert {(device, stream) for _, device, stream in launches} == {(1, 1)}
        order = [("cudaEventRecord", 1, 1), ("cudaStreamWaitEvent", 1, library)]
        assert [call for call in made if "Event" in call[0]] == (order if waits else [])
        assert not named(made, "Synchronize")
        # The workspace is given back, after the launches; the result when its library does so.
        assert len(named(made, "cudaMallocAsync")) == 2
        (free,) = named(made, "cudaFreeAsync")
        assert free[1:] == (1, 1)
        assert made.index(free) > made.index(launches[-1])
        del out
        made = emulated.calls()
        assert len(named(made, "cudaFreeAsync")) == 1
        settled = bool(named(made, "cudaDeviceSynchronize"))
        assert settled == (library not in (1, None))  # its last user is unknown, and not ordered


def test_gradients():
    """All on the legacy default stream, after which each result comes on the library's own; memory
    is ours until its library gives it back."""
    more = {"heads": (2, 2, 1, 4), "mask": "float32 (Sq, Sk)", "sinks": True}
    case = Case("float16", **PLAIN | more)
    options = {"kv_lengths": np.array([5, 67], np.int32), **case.options}
    there = {
        name: Standard(x, 1) if isinstance(x, np.ndarray) else x for name, x in options.items()
    }
    (dout, dlse), arrays = case.upstream(), case.arrays()
    out, lse = run(case, options)
    with emulated.machine(devices=2):
        given = [Standard(x, 1) for x in (dout, *arrays, out, lse)]
        emulated.calls()
        got = fanano.attention_backward(*given, dlse=Standard(dlse, 1), grad_mask=True, **there)
        made = emulated.calls()
        assert all(x.asked["stream"] == 1 and x.returned == 1 for x in given)
        launches = named(made, "_kernel")
        assert {(device, stream) for _, device, stream in launches} == {(1, 1)}
        order = [("cudaEventRecord", 1, 1), ("cudaStreamWaitEvent", 1, Standard.stream)]
        assert [call for call in made if "Event" in call[0]] == order * 5
        assert not named(made, "Synchronize")
        # The workspace is given back, after the launches.
        assert len(named(made, "cudaMallocAsync")) == 5 + 1
        (free,) = named(made, "cudaFreeAsync")
        assert made.index(free) > made.index(launches[-1])
        assert all(type(x) is Taken and x.device == (2, 1) for x in got)
        found = fanano.Gradients(*(x.numpy() for x in got))
        assert all(x.any() for x in found)
        judgement = compare.GradientJudgement(str(case))
        judgement.add(found, *arrays, dout, dlse=dlse, **options)
        judgement.verdict()
        emulated.calls()
        del got
        assert len(named(emulated.calls(), "cudaFreeAsync")) == 5


def test_a_stream_of_dlpacks_numbers():
    lent = [_core.Buffer((3,), "float32", 0, 9)]
    assert lent[0].__dlpack_device__() == (2, 0)
    refuses(lambda: lent[0].__dlpack__(stream=0), "stream", "stream is 0, which DLPack leaves")
    emulated.calls()
    Taken(lent[0], 9)
    assert not emulated.calls()
    lent.clear()
    assert [name for name, *_ in emulated.calls()] == ["cudaFreeAsync"]


def test_no_memory():
    query, key, value = arrays()
    with emulated.machine(memory=100):
        refuses(
            lambda: fanano.attention(query, key, value),
            "cuda",
            "the allocation of 512 bytes failed on CUDA device 0: ",
        )
    fanano.attention(query, key, value)
    assert all(x.returned == 2 for x in (query, key, value))


def test_out():
    query, key, value = arrays()
    out = Standard(np.empty((1, 1, 4, 64), np.float16), fill=False)
    assert fanano.attention(query, key, value, out=out, kv_lengths=[3]) is out
    expected = fanano.attention(query, key, value, kv_lengths=[3])
    assert out.numpy().tobytes() == expected.numpy().tobytes()


def test_no_way_to_make_a_result():
    class Bare(Array):
        pass

    query, key, value = (Bare(x.array) for x in arrays())
    with pytest.raises(TypeError, match="no result can be made of their type"):
        fanano.attention(query, key, value)
    out = Bare(np.empty((1, 1, 4, 64), np.float16), fill=False)
    fanano.attention(query, key, value, out=out, kv_lengths=[3], algorithm="online")
    assert np.isfinite(out.numpy().astype(float)).all()
