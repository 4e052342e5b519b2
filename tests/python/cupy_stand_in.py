"""CuPy as far as fanano looks at it, for where there is none. Its arrays are what the tests make of
`ndarray`: objects that lend memory through DLPack."""

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace


class Device:
    """Current while it is entered."""

    current = 0

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        self.before, Device.current = Device.current, self.id
        return self

    def __exit__(self, *_):
        Device.current = self.before


@contextmanager
def imported(ndarray, empty=None, streams=()):
    """The module in the place of CuPy, for a while; its adapter is imported anew, before and after.
    `streams` are the current ones of each device, by handle."""
    cupy = ModuleType("cupy")
    cupy.ndarray, cupy.empty = ndarray, empty
    cupy.cuda = SimpleNamespace(
        Device=Device, get_current_stream=lambda device: SimpleNamespace(ptr=streams[device])
    )
    before = {name: sys.modules.pop(name, None) for name in ("cupy", "fanano.adapters.cupy")}
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
