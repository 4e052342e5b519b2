"""An array library on the emulator's devices that lends its arrays, and makes new ones, by DLPack's
C exchange, as torch does: the core calls nothing of Python's for it."""

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int32, c_int64, c_void_p, py_object
from types import SimpleNamespace

import emulated
import numpy as np
from compare import DTYPES
from emulated import Array
from lender import ExchangeApi, Tensor, new_capsule

from fanano import adapters

NAMES = {(2, 64): "float64", (2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16"}


def lent(array):
    """A loan of an Array's memory: `returned` counts those that are over."""
    array.__dlpack__()
    return array._managed


@CFUNCTYPE(c_int, py_object, POINTER(Tensor))
def tensor_from_object(x, tensor):
    tensor[0] = lent(x.memory).tensor
    return 0


@CFUNCTYPE(c_int, py_object, POINTER(c_void_p))
def managed_from_object(x, managed):
    managed[0] = ctypes.addressof(lent(x.memory))
    return 0


@CFUNCTYPE(c_int, c_int32, c_int32, POINTER(c_void_p))
def current_stream(kind, number, stream):
    assert (kind, number) == (2, Exchanged.device)
    stream[0] = Exchanged.stream
    return 0


say = CFUNCTYPE(None, c_void_p, c_char_p, c_char_p)


@CFUNCTYPE(c_int, POINTER(Tensor), POINTER(c_void_p), c_void_p, say)
def allocate(prototype, managed, context, set_error):
    like = prototype[0]
    shape = tuple((c_int64 * like.ndim).from_address(like.shape))
    wanted = shape, NAMES[like.code, like.bits], like.device_id
    Exchanged.asked.append(wanted)
    if not Exchanged.room:
        set_error(context, b"MemoryError", b"no room\nfollowed by a stack trace")
        return -1
    shape, dtype, device = Exchanged.makes or wanted
    x = Array(np.empty(shape, DTYPES[dtype]), device, fill=False)
    managed[0] = ctypes.addressof(lent(x))
    Exchanged.pending[managed[0]] = x
    return 0


@CFUNCTYPE(c_int, c_void_p, POINTER(c_void_p))
def managed_to_object(managed, made):
    x = Exchanged.pending.pop(managed)
    if not Exchanged.converts:
        x._take_back(managed)
        return -1
    x = Exchanged(x, managed)
    ctypes.pythonapi.Py_IncRef(py_object(x))  # the reference that the caller gets
    made[0] = id(x)
    return 0


API = ExchangeApi(
    major=1,
    minor=3,
    **{
        function: ctypes.cast(globals()[function], c_void_p)
        for function in (
            "allocate",
            "managed_from_object",
            "managed_to_object",
            "tensor_from_object",
            "current_stream",
        )
    },
)
NAME = ctypes.create_string_buffer(b"dlpack_exchange_api")


class Exchanged:
    """An array of the library."""

    __dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(API), ctypes.addressof(NAME), None)
    __dlpack__ = None  # never asked

    def __init__(self, memory, taken_over=None):
        self.memory, self._taken_over = memory, taken_over

    def __del__(self):
        if self._taken_over:
            self.memory._take_back(self._taken_over)
            self.ended.append(self.memory.array.shape)

    def numpy(self):
        return self.memory.numpy()

    @classmethod
    def begin(cls, device=0, stream=1):
        """As before the first call: where arrays are, and on which stream the library works."""
        cls.device, cls.stream = device, stream
        cls.asked = []  # of allocate(): shape, dtype, device
        cls.pending = {}  # made, and not yet an object
        cls.ended = []  # the shapes of what had been made
        cls.room, cls.makes, cls.converts = True, None, True  # makes: in place of what is asked


adapters._known[Exchanged] = SimpleNamespace(**vars(emulated.ADAPTER) | {"empty": None})
