"""A tiny array library on CUDA devices: those of the emulator that the module in stage_cuda is
linked with (tests/cuda). fanano knows it by an adapter, as it knows the large ones."""

import ctypes
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_void_p
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from compare import DTYPES
from lender import Lender

import fanano
from fanano import _core, adapters

_functions = ctypes.CDLL(_core.__file__)
here = hasattr(_functions, "emulator_allocate")
needs_emulator = pytest.mark.skipif(
    not here,
    reason="the module here is not linked with the emulator: ctest runs this in stage_cuda",
)

_CODES = {"f": 2, "i": 0, "b": 6, "V": 4}  # of DLPack; ml_dtypes.bfloat16 is void to NumPy


def _function(name, result, *arguments):
    if not here:
        return None
    function = getattr(_functions, f"emulator_{name}")
    function.restype, function.argtypes = result, arguments
    return function


_allocate = _function("allocate", c_void_p, c_size_t)
_free = _function("free", c_bool, c_void_p)
_copy_in = _function("copy_in", c_bool, c_void_p, c_void_p, c_size_t)
_copy_out = _function("copy_out", c_bool, c_void_p, c_void_p, c_size_t)
_take_calls = _function("take_calls", None, c_char_p, c_size_t)
_play = _function("play", None, c_int, c_int, c_size_t)


class _Memory:
    def __init__(self, size):
        self.address = _allocate(size)

    def __del__(self):
        assert _free(self.address)


class Array(Lender):
    """Strides, gaps and all, as `array` lies in the host's memory; without its numbers if it is to
    be written."""

    results_on = 0

    def __init__(self, array, device=0, *, fill=True, **said):
        begin, end = np.lib.array_utils.byte_bounds(array)
        self._memory = _Memory(end - begin)
        address = self._memory.address + array.ctypes.data - begin
        if fill:
            assert _copy_in(self._memory.address, begin, end - begin)
        code = 4 if array.dtype == ml_dtypes.bfloat16 else _CODES[array.dtype.kind]
        said = {"code": code, "data": address, **said}
        super().__init__(array, device=(2, device), device_type=2, device_id=device, **said)
        self.address = address

    @classmethod
    def empty(cls, shape, dtype, device=None, stream=None):
        return cls(np.empty(shape, DTYPES[dtype]), cls.results_on, fill=False)

    def numpy(self):
        """What has been written there, all of it."""
        assert self.array.flags.c_contiguous
        host = np.empty_like(self.array)
        assert _copy_out(host.ctypes.data, self.address, host.nbytes), "it was not all written"
        return host


ADAPTER = SimpleNamespace(
    library="emulated",
    prepare=None,
    written=None,
    diagnose=None,
    device_option=None,
    stream=None,
    empty=Array.empty,
    finisher=None,
    check_out=lambda out: None,
    dtype_name=str,
    fresh_seed=lambda query: 1,
    max_threads=lambda: 0,
)
adapters._known[Array] = ADAPTER


def calls():
    """What the CUDA runtime was asked to do since the last call of this: (name, device, stream)."""
    text = ctypes.create_string_buffer(1 << 16)
    _take_calls(text, len(text))
    found = [line.split() for line in text.value.decode().splitlines()]
    return [(name, int(device), int(stream)) for name, device, stream in found]


@contextmanager
def machine(devices=1, launch_error=0, results_on=0, memory=2**63):
    """Of so many devices; the library makes its results on this one. memory: the bytes that CUDA
    gives in one piece."""
    _play(devices, launch_error, memory)
    Array.results_on = results_on
    try:
        yield
    finally:
        _play(1, 0, 2**63)
        Array.results_on = 0


def sent(x):
    """NumPy's arrays on the device; lists and numbers stay here."""
    return Array(x) if isinstance(x, np.ndarray) else x


def attention(query, key, value, *, return_lse=False, **options):
    """fanano.attention of NumPy's arrays, on the device and back."""
    arrays = (Array(x) for x in (query, key, value))
    options = {name: sent(x) for name, x in options.items()}
    found = fanano.attention(*arrays, return_lse=return_lse, **options)
    return tuple(x.numpy() for x in found) if return_lse else found.numpy()


def attention_backward(*arrays, **options):
    """fanano.attention_backward, the same way."""
    options = {name: sent(x) for name, x in options.items()}
    found = fanano.attention_backward(*(Array(x) for x in arrays), **options)
    return fanano.Gradients(*(None if x is None else x.numpy() for x in found))
