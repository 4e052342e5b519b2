"""The end of rule 3.7 of the contract: every entry point sets its own rounding and denormal modes
and restores the caller's. Results have the same bits whatever the modes were, and these stay. That
workers do so too, new ones included, is in tests/cpp/cpu/parallel_test.cpp."""

import ctypes
import platform

import compare
import numpy as np
import pytest
from cases import Case
from scripts import script

import fanano
from fanano import _core

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the modes of x86-64: MXCSR")
pytestmark = x86

FLUSH_AND_DENORMALS_ARE_ZERO = 0x8040

MODES = {
    "downward": 0x2000,
    "upward": 0x4000,
    "toward zero": 0x6000,
    "flushing subnormal results, and inputs": FLUSH_AND_DENORMALS_ARE_ZERO,
    "all of it": 0xE040,
}
ALL = 0xFFC0  # without the flags of exceptions that have happened


class Modes(ctypes.Structure):
    """fenv_t of glibc on x86-64: 28 bytes of x87 state, then MXCSR."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))

    @classmethod
    def now(cls):
        modes = cls()
        ctypes.CDLL("libm.so.6").fegetenv(ctypes.byref(modes))
        return modes

    def set(self):
        ctypes.CDLL("libm.so.6").fesetenv(ctypes.byref(self))


def problem(dtype):
    sizes = {"rows": 40, "keys": 600, "heads": (2, 4, 2, 4), "dims": (40, 33)}
    return Case(dtype, where="causal", data="growing", **sizes).arrays()


def tiny_problem(dtype):
    """Its values, and so its results, are subnormal: flushing them would show at once."""
    q, k, v = problem(dtype)
    tiny = {"float64": 2.0**-1060, "float32": 2.0**-140, "bfloat16": 2.0**-130}.get(dtype, 2.0**-20)
    return q, k, (v.astype(np.float64) * tiny).astype(v.dtype)


def calls(arrays):
    """Every way to have something computed; each gives arrays."""
    q, k, v = arrays
    row = v[0, 0, :, 0]
    mask = np.where(np.arange(600) % 7, 0, -2.5).astype(q.dtype)
    state = fanano.SoftmaxState().absorb(q[0, 0, 0])
    out, lse = fanano.attention(q, k, v, return_lse=True)
    found = {
        "backward": lambda: fanano.attention_backward(out, q, k, v, out, lse)[:3],
        "prefill": lambda: fanano.attention(q, k, v, return_lse=True),
        "decode": lambda: fanano.attention(q[:, :, :3], k, v, return_lse=True),
        "decode in splits": lambda: fanano.attention(q[0, 0, :3], k[0, 0], v[0, 0]),
        "options": lambda: fanano.attention(
            q, k, v, attn_mask=mask, scale=1 / 3, softcap=0.7, alibi_slopes=[0.1, 0.2, 0.3, 1 / 3],
            sinks=[0.1, 1.1, -2.3, 1e-40], return_lse=True,
        ),
        "absorb": lambda: (np.array(fanano.SoftmaxState().absorb(row).__getstate__()),),
        "merge": lambda: (np.array(state.merge(state.absorb(row)).__getstate__()),),
        "lse": lambda: (np.array(state.lse),),
    }  # fmt: skip
    for name in "naive", "safe", "online":
        found[name] = lambda name=name: fanano.attention(q, k, v, algorithm=name, return_lse=True)
        found[f"softmax {name}"] = lambda name=name: (fanano.softmax(v, algorithm=name),)
    if q.dtype in (np.float32, np.float64):
        parts = fanano.attention(q, k, v, return_lse=True)
        found["merge_states"] = lambda: fanano.merge_states(*parts, *parts)
    return found


@pytest.fixture(scope="module", params=list(compare.DTYPES))
def expected(request):
    """The calls of every problem with their bits in the modes that everything starts in."""
    assert Modes.now().mxcsr & ALL == 0x1F80
    found = {}
    for make in problem, tiny_problem:
        for name, call in calls(make(request.param)).items():
            found[make.__name__, name] = call, [x.tobytes() for x in call()]
    out = np.frombuffer(found["tiny_problem", "prefill"][1][0], compare.DTYPES[request.param])
    assert (np.abs(out.astype(np.float64)) > 0).any()
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", [1, 2])
def test_the_modes_of_the_caller(mode, n, expected, threads):
    threads(n)
    before, changed = Modes.now(), Modes.now()
    changed.mxcsr = before.mxcsr & ~0xE040 | MODES[mode]
    for name, (call, bits) in expected.items():
        try:
            changed.set()
            got = call()
            after = Modes.now()
        finally:
            before.set()
        assert after.mxcsr & ALL == changed.mxcsr & ALL, name
        assert [x.tobytes() for x in got] == bits, name


def test_the_modes_of_the_caller_after_an_error():
    before, changed = Modes.now(), Modes.now()
    changed.mxcsr |= 0xE040
    x = np.ones((3, 4), np.float32)
    try:
        changed.set()
        with pytest.raises(ValueError, match="softcap"):
            fanano.attention(x, x, x, softcap=-1.0)
        after = Modes.now()
    finally:
        before.set()
    assert after.mxcsr & ALL == changed.mxcsr & ALL


def test_yardsticks_restore_them_too():
    before, changed = Modes.now(), Modes.now()
    changed.mxcsr |= 0xE040
    x = np.ones(1000, np.float32)
    for call in (lambda: _core.read(x)), (lambda: _core.measure_peak(1e-4)):
        try:
            changed.set()
            call()
            after = Modes.now()
        finally:
            before.set()
        assert after.mxcsr & ALL == changed.mxcsr & ALL


def test_the_import_changes_none():
    """What is linked with -ffast-math flushes subnormal numbers of the whole process from then
    on."""
    assert script(
        """
        import fanano
        fanano.kernels()
        tiny, one, little = map(float, ("5e-324", "1", "1e-30"))
        print(tiny * one > 0, one + little == one, one - little == one)
        """
    ) == "True True True"  # fmt: skip
