"""Rule 3.7 of the contract, sentence by sentence, bit for bit: a row's result is a function of its
own query, its visible keys and values with their positions, and the options; of nothing else."""

import ctypes
import platform
import subprocess
import sys

import compare
import numpy as np
import pytest
from cases import Case

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
ROWS, KEYS = 150, 290


def problem(dtype, **changes):
    sizes = {"rows": ROWS, "keys": KEYS, "heads": (2, 4, 2, 4), "dims": (40, 33)}
    return Case(dtype, **sizes | {"where": "causal", "data": "growing"} | changes)


def run(arrays, **options):
    return fanano.attention(*arrays, return_lse=True, **{"is_causal": True} | options)


def same(a, b):
    """The same bits in out and in lse."""
    assert [x.shape for x in a] == [x.shape for x in b]
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def part(result, index):
    return tuple(x[index] for x in result)


@dtypes
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
def test_the_same_call_again(dtype, algorithm):
    arrays = problem(dtype).arrays()
    first = run(arrays, algorithm=algorithm)
    for _ in range(5):
        same(run(arrays, algorithm=algorithm), first)


@dtypes
@pytest.mark.parametrize("rows", [1, 16, 17, ROWS])
def test_threads(dtype, rows, threads):
    arrays = problem(dtype, rows=rows).arrays()
    threads(1)
    alone = run(arrays)
    for n in 2, 3, 4:
        threads(n)
        same(run(arrays), alone)


@dtypes
@pytest.mark.parametrize("rows", [1, 16, 17, ROWS])
def test_the_batch_and_the_other_heads(dtype, rows):
    q, k, v = problem(dtype, rows=rows).arrays()
    whole = run((q, k, v))
    for b in range(2):
        one = np.s_[b : b + 1]
        same(run((q[one], k[one], v[one])), part(whole, one))
        for h in range(4):
            g = h // 2
            alone = run((q[one, h : h + 1], k[one, g : g + 1], v[one, g : g + 1]))
            same(alone, part(whole, np.s_[one, h : h + 1]))


@dtypes
def test_shared_key_heads_are_repeated_key_heads(dtype):
    q, k, v = problem(dtype).arrays()
    same(run((q, k, v)), run((q, k.repeat(2, 1), v.repeat(2, 1))))


@dtypes
def test_other_rows(dtype):
    q, k, v = problem(dtype).arrays()
    whole = run((q, k, v))
    other = q[:, :, ::-1].copy()
    other[:, :, 70] = q[:, :, 70]
    same(part(run((other, k, v)), np.s_[:, :, 70]), part(whole, np.s_[:, :, 70]))
    other[:, :, :70] = np.nan
    other[:, :, 71:] = 1e4
    same(part(run((other, k, v)), np.s_[:, :, 70]), part(whole, np.s_[:, :, 70]))


@dtypes
@pytest.mark.parametrize("chunks", [(17, 133), (100, 50), (33, 64, 53), (18, 19, 20, 21, 72)])
def test_how_a_prefill_is_cut(dtype, chunks):
    """Into chunks of more than 16 rows, each at its own offset."""
    q, k, v = problem(dtype).arrays()
    whole = run((q, k, v))
    begin = 0
    for rows in chunks:
        chunk = np.s_[:, :, begin : begin + rows]
        here = run((q[chunk], k, v), q_offset=KEYS - ROWS + begin)
        same(here, part(whole, chunk))
        begin += rows
    assert begin == ROWS


@dtypes
def test_how_a_decode_is_cut(dtype):
    """16 queries at once, or one by one."""
    q, k, v = problem(dtype, rows=16).arrays()
    whole = run((q, k, v))
    for i in range(16):
        one = np.s_[:, :, i : i + 1]
        same(run((q[one], k, v), q_offset=KEYS - 16 + i), part(whole, one))


@dtypes
@pytest.mark.parametrize("garbage", [0, 1e4, np.nan, np.inf])
def test_padding(dtype, garbage):
    """Its length and what stands in it."""
    q, k, v = problem(dtype).arrays()
    lengths = {"q_lengths": [ROWS, 60], "kv_lengths": [KEYS, 201]}
    whole = run((q, k, v), **lengths)
    short = run((q[1:, :, :60], k[1:, :, :201], v[1:, :, :201]))
    same(part(whole, np.s_[1:, :, :60]), short)
    q[1, :, 60:] = k[1, :, 201:] = v[1, :, 201:] = garbage
    same(run((q, k, v), **lengths), whole)
    longer = [np.pad(x, ((0, 0), (0, 0), (0, 37), (0, 0)), constant_values=7) for x in (q, k, v)]
    same(part(run(longer, **lengths), np.s_[:, :, :ROWS]), whole)


@dtypes
def test_keys_that_no_row_visits(dtype):
    q, k, v = problem(dtype).arrays()
    whole = run((q, k, v), q_offset=20)
    seen = np.s_[:, :, : ROWS + 20]
    same(run((q, k[seen], v[seen]), q_offset=20), whole)
    k[:, :, ROWS + 20 :] = v[:, :, ROWS + 20 :] = np.nan
    same(run((q, k, v), q_offset=20), whole)


@dtypes
@pytest.mark.parametrize("strides", ["odd rows", "negative", "columns"])
def test_strides(dtype, strides):
    arrays = problem(dtype).arrays()
    moved = []
    for x in arrays:
        if strides == "odd rows":
            room = np.full((*x.shape[:-1], x.shape[-1] + 3), 9, x.dtype)[..., 1:-2]
        elif strides == "negative":
            room = np.full_like(x, 9)[::-1, ::-1, ::-1, ::-1]
        else:
            room = np.full((*x.shape, 3), 9, x.dtype)[..., 1]
        room[...] = x
        moved.append(room)
    same(run(moved), run(arrays))


@dtypes
def test_broadcast_inputs(dtype):
    arrays = problem(dtype).arrays()
    views = [np.broadcast_to(x[:1, :1], x.shape) for x in arrays]
    same(run(views), run([x.copy() for x in views]))


@dtypes
def test_layout(dtype):
    arrays = problem(dtype).arrays()
    out, lse = run(arrays)
    swapped, lse_too = run([np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays], layout="bshd")
    same((swapped.swapaxes(1, 2), lse_too), (out, lse))


@dtypes
def test_rank(dtype):
    q, k, v = problem(dtype).arrays()
    whole = run((q, k, v))
    same(run((q[1], k[1], v[1])), part(whole, 1))
    same(run((q[1, 3], k[1, 1], v[1, 1])), part(whole, (1, 3)))


@dtypes
@pytest.mark.parametrize("shift", [1, 3, 7])
def test_alignment(dtype, shift):
    arrays = problem(dtype).arrays()
    moved = []
    for x in arrays:
        buffer = np.zeros(x.size + shift, x.dtype)
        moved.append(buffer[shift:].reshape(x.shape))
        moved[-1][...] = x
    whole = run(arrays)
    same(run(moved), whole)
    room = np.zeros(whole[0].size + shift, whole[0].dtype)[shift:].reshape(whole[0].shape)
    same(run(moved, out=room), whole)


# ---- the caller's floating-point modes -----------------------------------------------------------

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the modes of x86-64")
DOWNWARD, UPWARD, TOWARD_ZERO = 0x400, 0x800, 0xC00  # fenv.h of x86-64
FLUSH_AND_DENORMALS_ARE_ZERO = 0x8040  # MXCSR


def tiny_problem(dtype):
    """Values among the subnormal numbers: flushing them would show at once."""
    q, k, v = problem(dtype).arrays()
    small = {"float64": 2.0**-1060, "float32": 2.0**-140, "bfloat16": 2.0**-130}.get(
        dtype, 2.0**-20
    )
    return q, k, (v.astype(np.float64) * small).astype(v.dtype)


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


@x86
@dtypes
@pytest.mark.parametrize("algorithm", ["flash", "safe"])
def test_denormals_of_the_caller(dtype, algorithm, threads):
    arrays = tiny_problem(dtype)
    expected = run(arrays, algorithm=algorithm)
    assert (np.abs(expected[0].astype(np.float64)) > 0).any()
    before, flushing = Modes.now(), Modes.now()
    flushing.mxcsr |= FLUSH_AND_DENORMALS_ARE_ZERO
    for n in 1, 2:
        threads(n)
        try:
            flushing.set()
            got = run(arrays, algorithm=algorithm)
            after = Modes.now()
        finally:
            before.set()
        assert after.mxcsr & FLUSH_AND_DENORMALS_ARE_ZERO == FLUSH_AND_DENORMALS_ARE_ZERO
        same(got, expected)


@x86
@dtypes
@pytest.mark.parametrize("mode", [DOWNWARD, UPWARD, TOWARD_ZERO])
def test_rounding_of_the_caller(dtype, mode, threads):
    libm = ctypes.CDLL("libm.so.6")
    arrays = problem(dtype).arrays()
    x = arrays[0][0, 0]
    calls = {
        "attention": lambda: b"".join(a.tobytes() for a in run(arrays)),
        "safe": lambda: run(arrays, algorithm="safe")[0].tobytes(),
        "softmax": lambda: fanano.softmax(x).tobytes(),
        "state": lambda: np.float64(fanano.SoftmaxState().absorb(x[0]).lse).tobytes(),
    }
    if dtype in ("float32", "float64"):
        whole = run(arrays)
        calls["merge"] = lambda: fanano.merge_states(*whole, *whole)[0].tobytes()
    for name, call in calls.items():
        expected = call()
        for n in 1, 2:
            threads(n)
            try:
                assert libm.fesetround(mode) == 0
                got = call()
                after = libm.fegetround()
            finally:
                libm.fesetround(0)
            assert after == mode, name
            assert got == expected, name


def test_torch_flushing_denormals():
    """torch.set_flush_denormal changes the modes of the whole thread."""
    pytest.importorskip("torch", reason="torch is not installed")
    script = """
import torch, fanano
q, k = torch.ones(20, 8), torch.ones(30, 8)
v = torch.full((30, 8), 2.0**-140)
kept = fanano.attention(q, k, v)
assert torch.set_flush_denormal(True)
flushed = fanano.attention(q, k, v)
assert (torch.tensor([2.0**-140]) * 1).item() == 0  # torch's mode is still torch's
torch.set_flush_denormal(False)
assert torch.equal(kept, flushed) and (kept > 0).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype in "float64", "float32", "float16":
        arrays = problem(dtype).arrays()
        theirs = fanano.attention(*map(torch.from_numpy, arrays), is_causal=True, return_lse=True)
        same([x.numpy() for x in theirs], run(arrays))
