"""torch tensors that are views, and gradients of results whose own lie somehow in memory: on the
CPU, and by ``pytest -m cuda`` on a GPU. And what the tests there stand on."""

import warnings

import compare
import cuda_cases
import gpu
import numpy as np
import pytest
import torch
from cases import Case
from torch_gpu import PLACES, judge_gradients, nothing_waits, on_host, sent


@pytest.mark.parametrize("strides", ["contiguous", "odd rows", "turned", "broadcast", "negative"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_what_is_sent_is_a_view(dtype, strides):
    case = Case(dtype, rows=5, keys=7, dims=(6, 3), strides=strides)
    for x in case.arrays():
        y = sent(x, "cpu")
        assert on_host(y).tobytes() == x.tobytes()
        if strides != "negative":
            assert y.stride() == tuple(step // x.itemsize for step in x.strides)
            assert y.is_contiguous() == (strides == "contiguous")
    assert sent(None) is None
    assert sent(np.array(3), "cpu") == 3


DOUTS = {
    "gaps": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "turned": lambda x: np.ascontiguousarray(x.T).T,
    "rows first": lambda x: np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
    "expanded": lambda x: np.broadcast_to(x[:1, :1, :1], x.shape),
    "of a sum": lambda x: np.broadcast_to(x[:1, :1, :1, :1], x.shape),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", DOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dout(dtype, name, place):
    """As autograd may give it: a transposed one, or that of a sum, which is one number."""
    case = Case(dtype, **cuda_cases.PLAIN | {"heads": (2, 2, 1, 4), "rows": 33})
    dout = DOUTS[name](case.upstream()[0])
    assert not dout.flags.c_contiguous
    judge_gradients(case, device=place, dout=dout)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("strides", ["odd rows", "turned", "broadcast"])
def test_views(strides, place):
    """Of query, key, value and a mask with gradients."""
    options = cuda_cases.PLAIN | {"mask": "float32 (Sq, Sk)", "strides": strides}
    judge_gradients(Case("float16", **options), device=place)


# ---- what the tests on a GPU stand on ------------------------------------------------------------


@pytest.fixture
def debug_mode(monkeypatch):
    """torch's: as there, it warns when it has been set."""
    modes = ["default"]

    def set_sync_debug_mode(mode):
        modes.append(mode)
        warnings.warn("Synchronization debug mode is a prototype feature and ...", stacklevel=2)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_sync_debug_mode)
    return modes


@pytest.mark.filterwarnings("error")  # which the day with a GPU does not ask for
def test_the_debug_mode_is_put_back(debug_mode):
    with nothing_waits():
        assert debug_mode[-1] == "error"
    assert debug_mode[-1] == "default"
    with pytest.raises(RuntimeError, match="called a synchronizing"), nothing_waits():
        raise RuntimeError("called a synchronizing CUDA operation")
    assert debug_mode[-1] == "default"
    with pytest.raises(UserWarning, match="another"), nothing_waits():
        warnings.warn("another", stacklevel=1)
    assert debug_mode[-1] == "default"


def test_no_gpu_on_the_day_with_one(monkeypatch):
    either = pytest.skip.Exception, pytest.fail.Exception
    for day, kind in ("", either[0]), ("1", either[1]):
        monkeypatch.setenv("FANANO_GPU_DAY", day)
        with pytest.raises(either, match="there is none") as outcome:
            gpu.none("there is none")
        assert outcome.type is kind
