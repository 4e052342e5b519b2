"""Gradients of attention on a CUDA device, through the whole library, as test_emulated_cuda.py does
it for attention itself."""

import compare
import emulated
import numpy as np
import oracle_dropout
import pytest
from cases import Case
from cuda_cases import OPTIONS, PLAIN, device_numbers, host_numbers, kernel_of, taken_by
from emulated import Array
from emulated_wild import launched
from refusals import refuses

import fanano

pytestmark = emulated.needs_emulator

OPTIONS = OPTIONS | {"nothing": {"scale": 0.0}, "grouped": {"heads": (1, 4, 2, 4)}}
SMALL = PLAIN | {"dims": (20, 12)}


def run(case, send=lambda options: options, **more):
    """Forward and backward on the device; a gradient of every mask that has one."""
    arrays, (dout, dlse) = case.arrays(), case.upstream()
    options = send(dict(case.options)) | more
    out, lse = emulated.attention(*arrays, out_dtype=case.out_dtype, return_lse=True, **options)
    mask = options.get("attn_mask")
    return emulated.attention_backward(
        dout.astype(out.dtype),
        *arrays,
        out,
        lse,
        dlse=dlse,
        grad_mask=mask is not None and mask.dtype != bool,
        **options,
    )


def judge(case, send=lambda options: options):
    got = run(case, send)
    judgement = compare.GradientJudgement(str(case))
    dout, dlse = case.upstream()
    judgement.add(got, *case.arrays(), dout, dlse=dlse, **case.options)
    judgement.verdict()
    return [x.tobytes() for x in got if x is not None]


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_dtype(dtype):
    judge(Case(dtype, **PLAIN))


@pytest.mark.parametrize(
    "row", [k for k in fanano.kernels() if k.name.startswith("backward_")], ids=repr
)
def test_each_row_of_the_table(row):
    """Is chosen where test_torch_cuda_gradients.py, on a GPU, takes it to be."""
    sizes, options = taken_by(row)
    for dims in sizes:
        emulated.calls()
        judge(Case(row.dtype, rows=19, keys=35, dims=dims, **options))
        assert kernel_of(row) in launched()


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option(name):
    judge(Case("float16", **SMALL | OPTIONS[name]), host_numbers)


@pytest.mark.parametrize("name", ["lengths", "offsets", "slopes", "sinks"])
def test_numbers_on_the_device(name):
    """They are read there, and give the bits of the host's, which are sent."""
    case = Case("float16", **SMALL | OPTIONS[name])
    emulated.calls()
    there = judge(case, device_numbers)
    assert not [call for call, *_ in emulated.calls() if "upload_kernel" in call]
    assert judge(case, host_numbers) == there
    assert [call for call, *_ in emulated.calls() if "upload_kernel" in call]


def test_dropout():
    case = Case("float16", **SMALL)
    got = run(case, dropout_p=0.3, seed=11)
    keep = oracle_dropout.keep((*case.heads[:2], case.rows, case.keys), 0.3, 11)
    dout, dlse = case.upstream()
    judgement = compare.GradientJudgement(str(case))
    judgement.add(got, *case.arrays(), dout, dlse=dlse, dropout_p=0.3, keep=keep, **case.options)
    judgement.verdict()


def arrays(device=0, dtype=np.float16):
    """dout, query, key, value, out, lse."""
    shape, ones = (1, 1, 4, 64), np.ones((1, 1, 4, 64), dtype)
    lse = np.full(shape[:3], np.log(4), np.float32)
    return [Array(x, device) for x in (ones, ones, ones, ones, ones, lse)]


def test_stream_and_device():
    """Nothing waits, everything is on the stream that the libraries were told, and the caller's
    device is as before."""
    with emulated.machine(devices=2, results_on=1):
        given = arrays(1)
        fanano.attention_backward(*given, kv_lengths=[3], q_offset=[2], sinks=[0.5])
        emulated.calls()
        fanano.attention_backward(*given, kv_lengths=[3], q_offset=[2], sinks=[0.5])
        made = emulated.calls()
    launches = [call for call in made if not call[0].startswith("cuda")]
    assert len([name for name, *_ in launches if "upload_kernel" not in name]) >= 3
    assert all((device, stream) == (1, 1) for _, device, stream in launches)
    assert not [name for name, *_ in made if "Synchronize" in name or "Memcpy" in name]
    assert "cudaSetDevice" not in [name for name, *_ in made]


def test_results_come_from_the_library_on_the_device():
    given = arrays()
    mask = Array(np.zeros((4, 4), np.float32))
    adapter = fanano.adapters._known[Array]
    asked = []

    def empty(shape, dtype, device, stream):
        assert (device, stream) == (0, 1)
        asked.append((shape, dtype))
        return Array.empty(shape, dtype)

    adapter.empty, before = empty, adapter.empty
    try:
        got = fanano.attention_backward(*given, attn_mask=mask, grad_mask=True, sinks=[1.0])
    finally:
        adapter.empty = before
    assert all(type(x) is Array for x in got)
    *results, (room, dtype) = asked
    shape = 1, 1, 4, 64
    assert results == [(shape, "float16")] * 3 + [((4, 4), "float32"), ((1,), "float32")]
    assert dtype == "float64"  # the workspace: a sink, and what is known of each row
    assert room[0] * 8 >= 8 + 4 * 12 + 256
    assert all(x.returned == 1 for x in (*given, mask, *got))


def test_refused():
    given = arrays()
    for argument, index in ("dout", 0), ("key", 2), ("out", 4), ("lse", 5):
        with emulated.machine(devices=2):
            wrong = list(given)
            wrong[index] = Array(given[index].array, 1)
            refuses(
                lambda wrong=wrong: fanano.attention_backward(*wrong),
                "same_device",
                f"{argument} must be on the device of query, CUDA:0",
            )
    with emulated.machine(launch_error=700):
        refuses(lambda: fanano.attention_backward(*given), "cuda", "the kernel .* on CUDA device 0")
    assert np.isfinite(fanano.attention_backward(*given).dk.numpy().astype(float)).all()


def test_nothing_at_all():
    for shape in (0, 2, 3, 64), (1, 2, 0, 64):
        x, lse = Array(np.empty(shape, np.float16)), Array(np.empty(shape[:3], np.float32))
        got = fanano.attention_backward(x, x, x, x, x, lse)
        assert [g.array.shape for g in got[:3]] == [shape] * 3


def test_every_dtype_has_a_row():
    names = {(k.name, k.dtype) for k in fanano.kernels() if k.device == "cuda"}
    assert {(f"backward_plain_{dtype}", dtype) for dtype in compare.DTYPES} <= names
