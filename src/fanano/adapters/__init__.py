"""Which adapter an array needs. An adapter is a module with the functions of ``Adapter``.

A library is looked for only if it has been imported already: whoever passes its arrays did that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

__all__ = [
    "Adapter",
    "Watched",
    "adapter_of",
    "common_adapter",
    "diagnosis",
    "prepared_option",
    "prepared_seed",
]


class Watched(NotImplementedError):
    """The library watches what is done to an array (it differentiates, transforms or records), so
    its memory alone does not say what to do. args: the message, the library, and an ``attention``
    that the library can watch."""

    def __str__(self) -> str:
        return str(self.args[0])


class Adapter(Protocol):
    """What the facade asks of an array library."""

    library: str  # its name in messages

    # The arrays whose memory holds the numbers of the given ones; raises where none does, Watched
    # if attention can be had in another way. The names are for messages. None: every array is its
    # memory.
    prepare: Callable[[Sequence[str], Sequence[Any]], Sequence[Any]] | None

    # Tells the library that the caller's `out` was written. None: it does not care.
    written: Callable[[Any], None] | None

    # Raises, as prepare does, if the library knows why arrays cannot be read; asked when the core
    # has refused them. The first argument: whether the call can use CUDA devices.
    diagnose: Callable[..., None] | None

    # An option as the core reads it, beside this query, where it is on a device; there none of its
    # numbers can be looked at. None: as it is.
    device_option: Callable[[str, Any, Any], Any] | None

    # The library's current stream on the CUDA device of an array, by DLPack's number for it. None:
    # the core learns it with the arrays, or the library has no such thing.
    stream: Callable[[Any], int] | None

    # Memory for a result of a shape, of a dtype by name; on a CUDA device it is also told which,
    # and for work on which stream. None: the core gets it from query's type.
    empty: Callable[..., Any] | None

    # Returns what turns memory that `empty` made into the caller's own array, like the given one;
    # raises where nothing does. None: `empty` makes the caller's arrays.
    finisher: Callable[[Any], Callable[[Any], Any]] | None

    def accepts(self, argument: str, kind: type) -> bool:
        """Whether such arrays are the library's; TypeError if they are but cannot be used."""

    def check_out(self, out: Any) -> None:
        """Raises where ``out`` must not be written."""

    def dtype_name(self, dtype: Any) -> str:
        """The name of one of the library's dtypes, such as ``"float32"``."""

    def fresh_seed(self, query: Any) -> Any:
        """64 random bits for a dropout whose caller gave no seed: an integer, or one that lies on
        the device of ``query``."""

    def max_threads(self) -> int:
        """How many threads a call may use at most, of those that the adapter had the core borrow if
        any; 0: as many as fanano has, of its own."""


# In the order in which they are asked. Each is the name of the library's module and of our adapter.
_LIBRARIES = ("numpy", "torch", "jax", "cupy")

_known: dict[type, Adapter] = {}


def adapter_of(argument: str, array: Any) -> Adapter:
    """The adapter of one array; TypeError if it is not an array."""
    kind = type(array)
    adapter = _known.get(kind)
    if adapter is None:
        adapter = _find(argument, kind)
        if not _compiled():  # by torch, which cannot record such an effect
            _known[kind] = adapter
    return adapter


def common_adapter(**arrays: Any) -> Adapter:
    """The adapter of several arrays; TypeError unless they are of one library."""
    (first, array), *others = arrays.items()
    adapter = adapter_of(first, array)
    for argument, other in others:
        if _library(argument, other) != _library(first, array):
            raise TypeError(
                f"{argument} must be of the same library as {first}, {_library(first, array)}; "
                f"it is of {_library(argument, other)}"
            )
    return adapter


def prepared_option(argument: str, numbers: Any, query: Any = None) -> Any:
    """A mask, lengths or offsets as the core reads them; what is no array is left to it. With
    ``query``: they may be on its device."""
    if numbers is None or not hasattr(type(numbers), "__dlpack__"):
        return numbers
    adapter = adapter_of(argument, numbers)
    if adapter.diagnose is not None:
        adapter.diagnose(query is not None, **{argument: numbers})
    if adapter.prepare is not None:
        numbers = adapter.prepare((argument,), (numbers,))[0]
    if query is not None and adapter.device_option is not None:
        numbers = adapter.device_option(argument, numbers, query)
    return numbers


def prepared_seed(seed: Any, query: Any = None) -> Any:
    """One integer, of Python's or of a library's; TypeError for an array of more than one. With
    ``query``: it may be on its device."""
    if hasattr(type(seed), "__dlpack__"):
        # What has neither is for the core to refuse.
        shape, dtype = tuple(getattr(seed, "shape", ())), str(getattr(seed, "dtype", "int"))
        if shape or "int" not in dtype:
            raise TypeError(f"seed must be one integer, got an array of {dtype} of shape {shape}")
        return prepared_option("seed", seed, query)
    return seed


@contextmanager
def diagnosis(adapter: Adapter, *, cuda: bool = False, **arrays: Any) -> Iterator[None]:
    """Lets the adapter say better what the core refuses; cuda: of what runs on CUDA devices too."""
    try:
        yield
    except (TypeError, ValueError):
        if adapter.diagnose is not None:
            adapter.diagnose(cuda, **arrays)
        raise


def _library(argument: str, array: Any) -> str:
    library = adapter_of(argument, array).library
    return library or type(array).__module__.partition(".")[0]


def _find(argument: str, kind: type) -> Adapter:
    for library in _LIBRARIES:
        if library in sys.modules:
            adapter = _load(library)
            if adapter.accepts(argument, kind):
                return adapter
    if hasattr(kind, "__dlpack__"):
        return _load("dlpack")
    raise TypeError(
        f"{argument} must be an array (NumPy, torch or any other with __dlpack__), "
        f"got {kind.__name__}; numpy.asarray makes an array of lists and numbers"
    )


def _compiled() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def _load(name: str) -> Adapter:
    """By statements: torch's compiler cannot trace a call of importlib's."""
    adapter: Any
    match name:
        case "numpy":
            from . import numpy as adapter
        case "torch":
            from . import torch as adapter
        case "jax":
            from . import jax as adapter
        case "cupy":
            from . import cupy as adapter
        case _:
            from . import dlpack as adapter
    return cast(Adapter, adapter)
