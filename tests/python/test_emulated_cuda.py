"""Attention on a CUDA device, through the whole library: DLPack, checks, the choice of a kernel,
the kernel itself. The device is the emulator of tests/cuda; what torch adds needs a real one
(test_torch_cuda.py)."""

import compare
import emulated
import numpy as np
import oracle_dropout
import pytest
from cases import Case
from cuda_cases import OPTIONS, PADDED, PLAIN, device_numbers, host_numbers, kernel_of, taken_by
from emulated import Array
from emulated_wild import launched
from refusals import refuses

import fanano

pytestmark = emulated.needs_emulator


def run(case, send=lambda options: options, draw=0, **more):
    return emulated.attention(
        *case.arrays(draw),
        **send(dict(case.options)),
        algorithm=case.algorithm,
        out_dtype=case.out_dtype,
        return_lse=True,
        **more,
    )


def judge(case, send=lambda options: options):
    out, lse = run(case, send)
    compare.judge_attention(
        out, lse, *case.arrays(), what=str(case), out_dtype=case.out_dtype, **case.options
    )
    return out.tobytes(), lse.tobytes()


@pytest.mark.parametrize("algorithm", ["flash", "online", "safe", "naive"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_dtype_and_algorithm(dtype, algorithm):
    judge(Case(dtype, algorithm=algorithm, **PLAIN))


ROWS = [k for k in fanano.kernels() if k.device == "cuda" and not k.name.startswith("backward_")]


@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_each_row_of_the_table(row):
    """Is chosen where test_torch_cuda.py, on a GPU, takes it to be."""
    algorithm = "safe" if row.name == "materialised" else "flash"
    sizes, options = taken_by(row)
    rows = 7 if row.name.startswith("decode") else 19
    for dims in sizes:
        emulated.calls()
        judge(Case(row.dtype, rows=rows, keys=35, dims=dims, algorithm=algorithm, **options))
        assert kernel_of(row) in launched()


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option(name):
    judge(Case("float16", **PLAIN | OPTIONS[name]), host_numbers)


@pytest.mark.parametrize("name", ["lengths", "offsets", "slopes", "sinks"])
@pytest.mark.parametrize("algorithm", ["flash", "safe"])
def test_numbers_on_the_device(name, algorithm):
    """They are read there, and give the bits of the host's, which are sent."""
    case = Case("float16", algorithm=algorithm, **PLAIN | OPTIONS[name])
    emulated.calls()
    there = judge(case, device_numbers)
    assert not [call for call, *_ in emulated.calls() if "upload_kernel" in call]
    assert judge(case, host_numbers) == there
    assert [call for call, *_ in emulated.calls() if "upload_kernel" in call]


@pytest.mark.parametrize("rows", [9, 19])
def test_few_queries_of_many(rows):
    """Sequences of at most 16 queries are decode's, whatever the others have."""
    lengths = {"q_lengths": np.array([3, rows]), "kv_lengths": np.array([600, 67])}
    case = Case("float16", **PLAIN | PADDED | {"rows": rows, "keys": 600})
    emulated.calls()
    out, lse = run(case, lambda options: options | lengths)
    kernels = launched()
    assert "decode_sm80_kernel" in kernels
    assert "combine_kernel" in kernels
    assert ("flash_sm80_kernel" in kernels) == (rows > 16)
    compare.judge_attention(out, lse, *case.arrays(), **case.options | lengths)


def test_dropout():
    case = Case("float16", **PLAIN)
    out, lse = run(case, dropout_p=0.3, seed=11)
    keep = oracle_dropout.keep((*case.heads[:2], case.rows, case.keys), 0.3, 11)
    compare.judge_attention(out, lse, *case.arrays(), dropout_p=0.3, keep=keep, **case.options)


def test_a_seed_on_the_device():
    """It gives the bits of the host's, and is read when the kernels run."""
    case = Case("float16", **PLAIN)
    seed = np.array(-7)
    emulated.calls()
    there = run(case, dropout_p=0.3, seed=seed)
    assert not [call for call, *_ in emulated.calls() if "upload_kernel" in call]
    for x, y in zip(there, run(case, dropout_p=0.3, seed=2**64 - 7), strict=True):
        assert x.tobytes() == y.tobytes()
    for wrong, rule, words in (
        (seed.astype(np.int16), "integers", "seed must be int32 or int64; it is int of 16 bits"),
        (np.array([1, 2]), "integer", "seed must be an integer, got emulated.Array"),
    ):
        refuses(lambda wrong=wrong: run(case, dropout_p=0.3, seed=wrong), rule, words)
    x = np.ones((1, 1, 2, 8), np.float32)
    words = "seed must be in the CPU's memory; it is on device CUDA:0"
    refuses(lambda: fanano.attention(x, x, x, dropout_p=0.3, seed=Array(seed)), "device", words)


def test_what_the_host_knows_is_checked():
    case = Case("float16", **PLAIN | PADDED)
    for name, wrong, most in ("kv_lengths", [2**40, 3], 67), ("q_lengths", [3, -1], 9):
        with pytest.raises(ValueError, match=f"{name} must be 0 to {most}"):
            run(case, lambda options, name=name, wrong=wrong: options | {name: wrong})


def arrays(device=0, **dims):
    case = Case("float16", rows=4, keys=5, heads=(1, 1, 1, 4), **dims)
    return [Array(x, device) for x in case.arrays()]


def test_stream_and_device():
    """Nothing waits, everything is on the stream that the libraries were told, and the caller's
    device is as before."""
    with emulated.machine(devices=2, results_on=1):
        query, key, value = arrays(1)
        out = Array(np.empty((1, 1, 4, 64), np.float16), 1, fill=False)
        lengths = Array(np.array([3]), 1)
        fanano.attention(query, key, value, out=out, kv_lengths=lengths, q_offset=[2])
        emulated.calls()
        fanano.attention(query, key, value, out=out, kv_lengths=lengths, q_offset=[2])
        made = emulated.calls()
    launches = [call for call in made if not call[0].startswith("cuda")]
    assert launches
    assert all((device, stream) == (1, 1) for _, device, stream in launches)
    waits = "Synchronize", "Memcpy", "Malloc", "Free"
    # The workspace is the array library's: here it comes by the emulator's own function.
    assert not [name for name, *_ in made if any(word in name for word in waits)]
    fanano.kernels()
    assert {device for _, device, _ in emulated.calls()} == {0}  # as before


def test_out():
    query, key, value = arrays()
    out = Array(np.empty((1, 1, 4, 64), np.float16), fill=False)
    assert fanano.attention(query, key, value, out=out) is out
    assert out.numpy().tobytes() == fanano.attention(query, key, value).numpy().tobytes()
    for wrong, rule, message in (
        (Array(out.array, flags=1), "read_only", "out is read-only"),
        (query, "overlap", "out shares its memory range with query"),
        (Array(out.array, 1), "same_device", "out must be on the device of query, CUDA:0"),
        (Lender_like(out.array), "same_device", "it is on CPU"),
    ):
        refuses(lambda wrong=wrong: fanano.attention(query, key, value, out=wrong), rule, message)


def Lender_like(array):
    """On the CPU, of the same library."""
    x = Array(array)
    x.device, x.said = (1, 0), {"code": 2}
    return x


def test_results_come_from_the_library_on_the_device():
    query, key, value = arrays()
    adapter = fanano.adapters._known[Array]
    asked = []

    def empty(shape, dtype, device, stream):
        assert (device, stream) == (0, 1)
        asked.append((shape, dtype))
        return Array.empty(shape, dtype)

    adapter.empty, before = empty, adapter.empty
    try:
        out, lse = fanano.attention(query, key, value, kv_lengths=[3], return_lse=True)
    finally:
        adapter.empty = before
    assert type(out) is type(lse) is Array
    *results, (room, dtype) = asked
    assert results == [((1, 1, 4, 64), "float16"), ((1, 1, 4), "float32")]
    assert dtype == "float64"  # the workspace: a length
    assert room[0] * 8 >= 8 + 256
    assert all(x.returned == 1 for x in (query, key, value, out, lse))


def test_a_launch_that_fails():
    query, key, value = arrays()
    with emulated.machine(launch_error=700):
        refuses(
            lambda: fanano.attention(query, key, value), "cuda", "the kernel .* on CUDA device 0"
        )
    assert np.isfinite(fanano.attention(query, key, value).numpy().astype(float)).all()


def test_no_such_device():
    query, key, value = arrays(3)
    out = Array(np.empty((1, 1, 4, 64), np.float16), 3, fill=False)
    refuses(lambda: fanano.attention(query, key, value, out=out), "cuda", "on CUDA device 3")


def test_nothing_at_all():
    for shape in (0, 2, 3, 64), (1, 2, 0, 64):
        x = Array(np.empty(shape, np.float16))
        out, lse = fanano.attention(x, x, x, return_lse=True)
        assert out.array.shape == shape
        assert lse.array.shape == shape[:3]


def test_everything_else_is_the_cpus():
    (x, *_) = arrays()
    with pytest.raises(ValueError, match="x must be in the CPU's memory; it is on device CUDA:0"):
        fanano.softmax(x)
