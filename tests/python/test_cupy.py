"""CuPy's arrays are refused by name: on a GPU fanano takes torch tensors alone."""

import sys
from types import ModuleType

import numpy as np
import pytest

import fanano

MESSAGE = "^{} is a CuPy array, .* torch tensors alone yet: torch.from_dlpack.* cupy.asnumpy"


def refused(x, numpys):
    lengths = x[0, :1]
    for argument, call in {
        "query": lambda: fanano.attention(x, x, x),
        "out": lambda: fanano.attention(numpys, numpys, numpys, out=x),
        "kv_lengths": lambda: fanano.attention(numpys, numpys, numpys, kv_lengths=lengths),
        "attn_mask": lambda: fanano.attention(numpys, numpys, numpys, attn_mask=x),
        "x": lambda: fanano.softmax(x),
        "scores": lambda: fanano.SoftmaxState().absorb(x),
        "out_a": lambda: fanano.merge_states(x, x, x, x),
    }.items():
        with pytest.raises(NotImplementedError, match=MESSAGE.format(argument)):
            call()


class Array:
    """What CuPy's arrays are to fanano: a type, and __dlpack__."""

    def __getitem__(self, index):
        return self

    def __dlpack__(self, **_):
        raise AssertionError("there is nothing to read")


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy, as far as fanano looks at it; its adapter is imported anew, before and after."""
    cupy = ModuleType("cupy")
    cupy.ndarray = Array
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    sys.modules.pop("fanano.adapters.cupy", None)
    yield cupy
    sys.modules.pop("fanano.adapters.cupy", None)


def test_by_name(stand_in):
    refused(stand_in.ndarray(), np.ones((4, 8), np.float32))


@pytest.mark.cuda
def test_on_a_gpu():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("there is no GPU that CuPy can use")
    x = cupy.ones((4, 8), cupy.float32)
    refused(x, cupy.asnumpy(x))
