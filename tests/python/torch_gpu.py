"""What the tests of torch on a real GPU share."""

import warnings
from contextlib import contextmanager

import compare
import gpu
import numpy as np
import pytest
import torch
from arrays import to_torch

import fanano

THERE = pytest.mark.skipif(
    not (torch.cuda.is_available() or gpu.day()), reason="there is no GPU that torch can use"
)
# For tests that run on the CPU, too: nothing of them is new to the GPU.
PLACES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, THERE])]


def on_a_gpu(test):
    return pytest.mark.cuda(THERE(test))


@contextmanager
def nothing_waits():
    """What lets torch wait for the device raises. Of this mode torch warns that it is a prototype,
    when it is set already: an exception there would leave it on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@contextmanager
def side_stream(place):
    """Work is given to a stream beside the current one, which waits for it at the end; on a CPU
    there are none."""
    if place == "cpu":
        yield
        return
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def tensors(rows=33, keys=65, dim=64, dtype=torch.float16, device="cuda", **more):
    torch.manual_seed(0)
    shapes = (2, 4, rows, dim), (2, 2, keys, dim), (2, 2, keys, dim)
    return [torch.randn(shape, dtype=dtype, device=device, **more) for shape in shapes]


def sent(x, device="cuda"):
    """NumPy's array as a tensor there, strides and all: what lies between its elements is sent,
    too. Anything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    if x.size == 0 or min(x.strides, default=0) < 0:  # torch has no strides below 0
        return to_torch(np.ascontiguousarray(x)).to(device)
    begin, end = np.lib.array_utils.byte_bounds(x)
    size = (end - begin) // x.itemsize
    memory = np.lib.stride_tricks.as_strided(x, [size], [x.itemsize], writeable=False)
    strides = [step // x.itemsize for step in x.strides]
    return to_torch(memory.copy()).to(device).as_strided(x.shape, strides)


def on_host(x):
    """NumPy's array of a tensor; None as it is."""
    if x is None:
        return None
    x = x.detach().cpu()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(compare.DTYPES["bfloat16"])
    return x.numpy()


def judge_gradients(case, send=lambda options: options, device="cuda", dout=None):
    """The judgement of the CPU's gradients (test_backward.py), on the device; dout: another one."""
    there = {name: sent(x, device) for name, x in send(dict(case.options)).items()}
    arrays, (its_dout, dlse) = case.arrays(), case.upstream()
    dout = its_dout if dout is None else dout
    on_device = [sent(x, device) for x in arrays]
    out, lse = fanano.attention(*on_device, return_lse=True, out_dtype=case.out_dtype, **there)
    mask = case.options.get("attn_mask")
    found = fanano.attention_backward(
        sent(dout, device).to(out.dtype),
        *on_device,
        out,
        lse,
        dlse=sent(dlse, device),
        grad_mask=mask is not None and mask.dtype != bool,
        **there,
    )
    judgement = compare.GradientJudgement(str(case))
    judgement.add(type(found)(*map(on_host, found)), *arrays, dout, dlse=dlse, **case.options)
    judgement.verdict()
