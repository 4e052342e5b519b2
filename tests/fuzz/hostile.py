"""Arrays for calls: some are honest, others say what cannot be. Each knows whether it must be
refused, worked out here in Python's integers, which do not overflow. A descriptor that lies about
where its memory is, and that nobody could see through, is not made: Undefendable.
"""

import ctypes
import math
import mmap
import types
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np
from guarded import Pages
from lender import Managed, Shared, new_capsule

ARENA = 64 * 1024
FLOATS = tuple(np.dtype(d) for d in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16))
BOOL, INT64, INT32 = np.dtype(bool), np.dtype(np.int64), np.dtype(np.int32)
CODES = {np.dtype(ml_dtypes.bfloat16): 4, BOOL: 6, INT64: 0, INT32: 0}  # the others: 2
ODD_DTYPES = (">f4", "V2", "O", "U1", "M8[s]", "g", "c8", "i1", "u8", "V0", "f4,i2", "?")


class Undefendable(Exception):
    """Says that memory is where it is not, in a way that no check could find."""


def numbers(dtype, kind):
    """An arena full of numbers, as bytes."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(ARENA // dtype.itemsize)
    if kind == "ones":
        x[:] = 1
    elif kind == "NaN":
        x[rng.random(x.size) < 0.01] = np.nan
    elif kind == "hidden":
        x[rng.random(x.size) < 0.3] = -np.inf
    elif kind == "nothing":
        x[:] = -np.inf
    if dtype == BOOL:
        x = x > (np.inf if kind == "nothing" else -0.5)
    elif dtype in (INT32, INT64):
        x = rng.integers(0, 3, x.size)
    return x.astype(dtype).tobytes()


class Arena:
    """Memory between pages that nobody may touch, and what it held before the call."""

    pool: ClassVar = []
    used = 0  # of the pool, by this call
    contents: ClassVar = {}  # by dtype and kind

    def __init__(self):
        page = mmap.PAGESIZE
        self.pages = Pages(ARENA + 2 * page)
        self.pages.forbid(0, page)
        self.pages.forbid(page + ARENA, page)
        self.bytes = self.pages.bytes(page, ARENA)
        self.address = self.pages.address + page

    @classmethod
    def next(cls, dtype, kind):
        if cls.used == len(cls.pool):
            cls.pool.append(cls())
        arena = cls.pool[cls.used]
        cls.used += 1
        if (dtype, kind) not in cls.contents:
            cls.contents[dtype, kind] = np.frombuffer(numbers(dtype, kind), np.uint8)
        arena.before = cls.contents[dtype, kind]
        arena.bytes[:] = arena.before
        return arena

    def fill(self, view, values):
        view[...] = values
        self.before = self.bytes.copy()


@dataclass
class Drawn:
    """An argument of a call, and what is known of it."""

    given: object
    view: np.ndarray | None = None  # its elements, of an array that is what it says and not huge
    arena: Arena | None = None
    refused: str = ""  # why it must be
    lender: object = None
    endless: bool = False  # more elements than there is memory


get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
get_pointer.restype = ctypes.c_void_p
get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def from_dlpack(x):
    """A copy of a contiguous array; numpy.from_dlpack knows no bfloat16."""
    capsule = x.__dlpack__()
    tensor = Managed.from_address(get_pointer(capsule, b"dltensor")).tensor
    shape = (ctypes.c_int64 * tensor.ndim).from_address(tensor.shape) if tensor.ndim else ()
    wanted = (tensor.code, tensor.bits)
    dtype = next(d for d in FLOATS if (CODES.get(d, 2), 8 * d.itemsize) == wanted)
    size = math.prod(shape) * dtype.itemsize
    memory = ctypes.string_at(tensor.data + tensor.byte_offset, size) if size else b""
    return Counted(np.frombuffer(memory, dtype).reshape(tuple(shape)))


class Counted(Shared):
    """An array of a library of its own, which counts the capsules that were taken from it."""

    made, deletes = 0, True

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=from_dlpack)

    def __dlpack__(self, **_):
        capsule = super().__dlpack__()
        if self.capsule is None:
            self.made += 1
            if not self.deletes:
                self._managed.deleter = None
        return capsule


NAME = ctypes.create_string_buffer(b"something else")
USED = ctypes.create_string_buffer(b"used_dltensor")
BIG = 2**62


def changed_shape(choices, shape, huge):
    """The shape, or one near it, or one that cannot be."""
    shape = list(shape)
    how = choices.often("same", "axis", "axis", "more", "fewer", "rank")
    if how == "axis" and shape:
        axis = choices.byte() % len(shape)
        extents = (1, 0, shape[axis] + 1, 2, 130, 577, huge, BIG, -1, -(2**63), 2**63 - 1)
        shape[axis] = choices.of(*extents)
    elif how == "more":
        shape.insert(0, choices.of(1, 2, 0))
    elif how == "fewer":
        del shape[:1]
    elif how == "rank":
        shape = [1] * choices.of(0, 1, 5, 64)
    return shape


def laid_out(choices, shape, itemsize):
    """Strides in elements, and the first element's place in an arena, in bytes."""
    order = list(range(len(shape)))
    how = choices.often("rows", "columns", "turned", "steps", "backwards", "still", "far", "all 0")
    if how == "columns":
        order.reverse()
    elif how == "turned" and order:
        order.append(order.pop(0))
    strides, step = [0] * len(shape), 2 if how == "steps" else 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    if shape and how in ("backwards", "still", "far"):
        axis = choices.byte() % len(shape)
        if how == "backwards":
            strides[axis] = -strides[axis]
        elif how == "still":
            strides[axis] = 0
        else:
            strides[axis] = choices.of(BIG, -BIG, 2**63 - 1, -(2**63), -(2**60), 3, 1)
    if how == "all 0":
        strides = [0] * len(shape)
    for axis, n in enumerate(shape):
        if n > ARENA and choices.of(True, False):
            strides[axis] = 0  # as large as one likes, over memory that is there
    strides = [min(max(s, -(2**63)), 2**63 - 1) for s in strides]
    low, high = reach(shape, strides, itemsize)
    if high - low > ARENA:
        return strides, 0
    # Against the one or the other end of its memory, or with the odd byte in between.
    return strides, -low + choices.often(0, ARENA - high + low, itemsize, 1, itemsize // 2)


def reach(shape, strides, itemsize):
    """The bytes from the first element to the lowest and beyond the highest."""
    if 0 in shape:
        return 0, 0
    steps = [(n - 1) * s * itemsize for n, s in zip(shape, strides, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + itemsize


def impossible(shape, strides, itemsize, address):
    """Why no array can be so; address None: null."""
    count = itemsize
    for n in shape:
        if n < 0:
            return "a negative extent"
        count *= max(n, 1)
    if count >= 2**63:
        return "more elements than can be counted"
    if 0 in shape:
        return ""
    low, high = reach(shape, strides, itemsize)
    if low < -(2**63) or high >= 2**63:
        return "strides too long"
    if address is None:
        return "no memory"
    if address % itemsize:
        return "misaligned"
    if address >= 2**64 or address + low < 0 or address + high > 2**64:
        return "outside of the address space"
    return ""


def draw(choices, shape, dtypes, library, huge=2**50, kind=None, arena=None):
    """An array argument of about this shape, of the first of these dtypes if no other is chosen.

    `dtypes` are those that this argument may have at all; what is of another must be refused.
    """
    dtype = choices.often(dtypes[0], *dtypes, *FLOATS, BOOL, INT32)
    kind = kind or choices.often("normal", "NaN", "ones", "hidden")
    shape = changed_shape(choices, shape, huge)
    strides, start = laid_out(choices, shape, dtype.itemsize)
    library = choices.often(library, "numpy", "lender")
    arena = arena or Arena.next(dtype, kind)
    if library == "numpy":
        return of_numpy(choices, shape, strides, start, dtype, dtypes, arena)
    return of_lender(choices, shape, strides, start, dtype, dtypes, arena)


def of_numpy(choices, shape, strides, start, dtype, dtypes, arena):
    odd = choices.often("", "dtype", "read-only", "partial steps")
    if odd == "dtype":
        small = [n if 0 <= n <= 4 else 1 for n in shape]
        dtype = np.dtype(choices.of(*ODD_DTYPES))
        return Drawn(np.zeros(small, dtype), refused="" if dtype in dtypes else f"of {dtype}")
    low, high = reach(shape, strides, dtype.itemsize)
    if not 0 <= start + low <= start + high <= ARENA or min(shape, default=0) < 0:
        raise Undefendable  # NumPy's own arrays do not lie
    steps = [s * dtype.itemsize for s in strides]
    memory = arena.bytes[start + low if 0 in shape else start :]
    try:
        if odd == "partial steps" and len(shape) > 1 and max(shape) < 99 and dtype.itemsize > 1:
            steps[0] += 1  # the pages around the memory are not its own: see that it is inside
            np.ndarray(shape, dtype, arena.bytes, start, steps)
        if 0 in shape:
            array = np.ndarray(shape, dtype, arena.bytes)
        else:
            bare = np.ndarray((), dtype, memory)
            array = np.lib.stride_tricks.as_strided(bare, shape, steps)
    except (ValueError, TypeError, OverflowError):  # more than NumPy can hold
        raise Undefendable from None
    if odd == "read-only":
        array.flags.writeable = False
    refused = "" if dtype in dtypes else f"of {dtype}"
    if array.size:
        if not array.flags.aligned and array.ctypes.data % dtype.itemsize:
            refused = "misaligned"
        if any(n > 1 and s % dtype.itemsize for n, s in zip(shape, array.strides, strict=True)):
            refused = "steps by parts of an element"
    view = None if refused or max(shape, default=0) > ARENA else array
    return Drawn(array, view, arena, refused, endless=array.size > ARENA)


def of_lender(choices, shape, strides, start, dtype, dtypes, arena):
    refused = "" if dtype in dtypes else f"of {dtype}"
    address, itemsize = arena.address + start, dtype.itemsize
    said = {"ndim": len(shape), "code": CODES.get(dtype, 2), "bits": 8 * itemsize}
    offset = choices.often(0, start, itemsize)
    said |= {"data": address - offset, "byte_offset": offset}
    lender = Counted(None, versioned=choices.often(True, False))
    lie = choices.often("", "ndim", "type", "device", "its device", "data", "offset", "shape",
                        "strides", "flags", "version", "deleter", "capsule")  # fmt: skip
    if lie == "ndim":
        said["ndim"] = choices.of(-1, 65, 2**31 - 1, -(2**31))
        refused = f"rank {said['ndim']}"
    elif lie == "type":
        name = choices.of("code", "bits", "lanes")
        good = said.get(name, 1)
        said[name] = choices.of(99, 0, 2, 4, 5, 6, 8, 10, 17, 32, 64, 255)
        if said[name] != good:
            refused = seen_as(said, dtypes)
            itemsize = max(said["bits"] // 8, 1)
    elif lie == "device":
        said |= {"device_type": choices.of(2, 0, -5, 3, 11, 13, 2**31 - 1), "device_id": 1}
        if said["device_type"] not in (3, 11):  # pinned memory is the CPU's
            refused = "device"
    elif lie == "its device":
        lender.device = choices.of((2, 0), (1,), None, (1.0, 0), (2**40, 0), (2**80, 0), [1, 0], 1)
        refused = "device"
    elif lie == "data":
        said["data"], address = None, None
    elif lie == "offset":
        said["byte_offset"] = choices.of(2**64 - 4, 2**64 - 1, 1, 2**63)
        address = said["data"] + said["byte_offset"]
    elif lie == "shape":
        said["shape"] = None
        refused = refused or ("no shape" if shape else "")
    elif lie == "strides":
        said["strides"], strides = None, None
    elif lie == "flags":
        said["flags"] = choices.of(1, 2, 2**63)
    elif lie == "version":
        said["major"] = choices.of(2, 0, 2**32 - 1)
        refused = "version" if lender.versioned else refused
    elif lie == "deleter":
        lender.deletes = False
    if strides is None:
        strides = [1] * len(shape)
        for i in range(len(shape) - 1, 0, -1):
            strides[i - 1] = strides[i] * shape[i]
    refused = refused or impossible(shape, strides, itemsize, address)
    low, high = reach(shape, strides, itemsize) if shape or not refused else (0, itemsize)
    if not refused and 0 not in shape:
        place = address - arena.address
        if not 0 <= place + low <= place + high <= ARENA:
            raise Undefendable
    said = {"shape": tuple(shape), "strides": tuple(strides), **said}
    lender.array, lender.said = arena.bytes, said
    if lie == "capsule":
        name = choices.of(NAME, USED)
        lender.capsule = choices.of(42, new_capsule(1, ctypes.addressof(name), None))
        refused = "no capsule"
    view = None
    if not refused and max(shape, default=0) <= ARENA:
        if 0 in shape:
            view = np.zeros(shape, dtype)
        else:
            first = np.ndarray((), dtype, arena.bytes, address - arena.address)
            steps = [s * itemsize if n > 1 else 0 for n, s in zip(shape, strides, strict=True)]
            view = np.lib.stride_tricks.as_strided(first, shape, steps)
        if said.get("flags", 0) & 1 and lender.versioned:
            view.flags.writeable = False
    return Drawn(lender, view, arena, refused, lender, math.prod(shape) > ARENA)


def seen_as(said, dtypes):
    """Why a type of this code, width and lanes must be refused."""
    if said.get("lanes", 1) != 1:
        return "lanes"
    for dtype in dtypes:
        if (said["code"], said["bits"]) == (CODES.get(dtype, 2), 8 * dtype.itemsize):
            raise Undefendable  # another dtype over the same memory: drawn elsewhere
    return "type"


def places(array):
    """The offset of each element in bytes."""
    offsets = np.zeros((), np.int64)
    for n, s in zip(array.shape, array.strides, strict=True):
        offsets = offsets[..., None] + np.arange(n) * s
    return offsets


def touched(arena, array):
    """Which bytes of the arena are the array's."""
    mask = np.zeros(ARENA, bool)
    if array.size:
        first = array.ctypes.data - arena.address
        starts = places(array).ravel() + first
        mask[(starts[:, None] + np.arange(array.itemsize)).ravel()] = True
    return mask


def stands_on_itself(array):
    offsets = places(array).ravel()
    return np.unique(offsets).size != offsets.size
