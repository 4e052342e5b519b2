"""An object that lends memory through DLPack with whatever descriptor a test wants it to show."""

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)

import numpy as np


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
    ]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", c_void_p), ("deleter", c_void_p)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", Tensor),
    ]


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [c_void_p, c_void_p, c_void_p]


class Lender:
    """Lends `array`; keyword arguments replace what its descriptor says.

    `returned` counts how often the deleter ran. Each call of `__dlpack__` makes a capsule, unless
    `capsule` is given; `asked` is what it was asked with.
    """

    def __init__(self, array, *, versioned=True, device=None, capsule=None, **said):
        self.array = array
        self.versioned = versioned
        self.device = (1, 0) if device is None else device
        self.capsule = capsule
        self.said = said
        self.returned = 0
        self._deleter = ctypes.CFUNCTYPE(None, c_void_p)(self._take_back)
        self._lent = []  # descriptors live as long as their lender, who may lend more than once

    def _take_back(self, _):
        self.returned += 1

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        self.asked = options
        if self.capsule is not None:
            return self.capsule
        said, a = dict(self.said), self.array
        shape = said.pop("shape", a.shape)
        strides = said.pop("strides", [s // a.itemsize for s in a.strides])
        flags = said.pop("flags", 0)
        major = said.pop("major", 1)
        self._shape = None if shape is None else (c_int64 * len(shape))(*shape)
        self._strides = None if strides is None else (c_int64 * len(strides))(*strides)
        fields = {
            "data": a.ctypes.data,
            "device_type": 1,
            "ndim": a.ndim,
            "code": 2,
            "bits": 8 * a.itemsize,
            "lanes": 1,
            "shape": ctypes.cast(self._shape, c_void_p),
            "strides": ctypes.cast(self._strides, c_void_p),
            **said,
        }
        deleter = ctypes.cast(self._deleter, c_void_p)
        if self.versioned:
            self._managed = ManagedVersioned(
                major=major, deleter=deleter, flags=flags, tensor=Tensor(**fields)
            )
        else:
            self._managed = Managed(deleter=deleter, tensor=Tensor(**fields))
        name = b"dltensor_versioned" if self.versioned else b"dltensor"
        self._name = ctypes.create_string_buffer(name)  # a capsule borrows its name
        self._lent.append((self._shape, self._strides, self._managed, self._name))
        return new_capsule(ctypes.addressof(self._managed), ctypes.addressof(self._name), None)


class Namespace:
    """The array namespace of `Shared`."""

    @staticmethod
    def from_dlpack(x):
        return Shared(np.from_dlpack(x))


class Shared(Lender):
    """An array library of one type, known to fanano through the standard's protocols alone."""

    def __array_namespace__(self):
        return Namespace


class ExchangeApi(ctypes.Structure):
    """What the capsule of a type's `__dlpack_c_exchange_api__` points to."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("older", c_void_p),
        ("allocate", c_void_p),
        ("managed_from_object", c_void_p),
        ("managed_to_object", c_void_p),
        ("tensor_from_object", c_void_p),
        ("current_stream", c_void_p),
    ]


def exchange_type(array=None, device=None, stream=None):
    """A type whose objects lend `array` through DLPack's C functions; None: they lend nothing, and
    do not say why. It makes no new arrays (emulated_exchange.py has one that does). A device that
    is not the CPU has a stream, or does not say which."""

    @CFUNCTYPE(c_int, c_void_p, POINTER(Tensor))
    def tensor_from_object(_, tensor):
        if array is None:
            return -1
        shape, data = ctypes.cast(extents, c_void_p), array.ctypes.data
        kind, number = device or (1, 0)
        tensor[0] = Tensor(data, kind, number, array.ndim, 2, 32, 1, shape)
        return 0

    @CFUNCTYPE(c_int, c_int32, c_int32, POINTER(c_void_p))
    def current_stream(kind, number, found):
        assert (kind, number) == device
        found[0] = stream
        return 0

    say = CFUNCTYPE(None, c_void_p, c_char_p, c_char_p)

    @CFUNCTYPE(c_int, POINTER(Tensor), c_void_p, c_void_p, say)
    def allocate(_prototype, _managed, context, set_error):
        set_error(context, b"MemoryError", b"no room\nfollowed by a stack trace")
        return -1

    shape = () if array is None else array.shape
    extents = (c_int64 * max(1, len(shape)))(*shape)
    api = ExchangeApi(
        major=1,
        minor=3,
        allocate=ctypes.cast(allocate, c_void_p),
        tensor_from_object=ctypes.cast(tensor_from_object, c_void_p),
        current_stream=None if stream is None else ctypes.cast(current_stream, c_void_p),
    )
    name = ctypes.create_string_buffer(b"dlpack_exchange_api")
    capsule = new_capsule(ctypes.addressof(api), ctypes.addressof(name), None)
    kept = (tensor_from_object, allocate, current_stream, extents, api, name)  # as long as the type
    members = {"__dlpack_c_exchange_api__": capsule, "kept": kept}
    return type("Exchange", (), members)
