"""Arrays between pages that nobody may touch, and arrays whose strides span more than memory."""

import ctypes
import mmap

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
NO_RESERVE = 0x4000  # Linux: pages cost memory only once they are touched


class Pages:
    """Anonymous memory, given back when the last array over it is gone."""

    def __init__(self, size):
        self.size = size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        self.address = libc.mmap(None, size, READ_WRITE, flags, -1, 0)
        if self.address == ctypes.c_void_p(-1).value:
            raise MemoryError(f"mmap of {size} bytes: errno {ctypes.get_errno()}")

    def forbid(self, offset, size):
        assert libc.mprotect(self.address + offset, size, 0) == 0

    def bytes(self, offset, size):
        memory = (ctypes.c_char * size).from_address(self.address + offset)
        memory.pages = self  # keeps the pages while an array lives
        return np.frombuffer(memory, np.uint8)

    def __del__(self):
        libc.munmap(self.address, self.size)


def between_pages(array, at):
    """A copy that begins ("start") or ends ("end") at a page where any access is a fault; on its
    other side is the rest of a page, and then the next such page."""
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // page) * page
    pages = Pages(room + 2 * page)
    pages.forbid(0, page)
    pages.forbid(page + room, page)
    offset = page if at == "start" else page + room - array.nbytes
    memory = pages.bytes(offset, array.nbytes) if array.nbytes else np.zeros(0, np.uint8)
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def far_apart(shape, dtype, strides):
    """Zeros with these strides, in elements, over memory of which only what is touched exists."""
    dtype = np.dtype(dtype)
    span = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    memory = Pages(span * dtype.itemsize).bytes(0, span * dtype.itemsize).view(dtype)
    return np.lib.stride_tricks.as_strided(memory, shape, [s * dtype.itemsize for s in strides])
