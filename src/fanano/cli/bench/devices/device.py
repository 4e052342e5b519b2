"""What the benchmark asks of a device: arrays on it, its clock, and what it reaches at best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from ..arrays import Inputs, Library
from ..cases import Case

Facts = dict[str, Any]


class Sample(NamedTuple):
    """Of one of the calls that were timed."""

    seconds: float  # by the device's clock
    cpu_seconds: float  # of all threads of this process
    mhz: int | None = None  # the device's clock rate meanwhile, where it can be asked


class Device(ABC):
    """Where the arrays of a case lie, and by which clock calls on them are timed."""

    name: ClassVar[str]
    library: Library

    def start(self) -> None:  # noqa: B027  most have nothing to do
        """Once, before anything else; raises CommandError where there is no such device."""

    @abstractmethod
    def facts(self, threads: int) -> Facts:
        """What files keep of it; "machine" is the line that heads the tables."""

    @abstractmethod
    def sets(self, case: Case, holders: int) -> tuple[int, int]:
        """How many copies of keys and values a decode takes in turn so that none is read from a
        cache, and the bytes of that cache. holders: of how many copies there may be."""

    @abstractmethod
    def sample(self, calls: Sequence[Callable[[], Any]]) -> Sample:
        """The calls one after the other, timed."""

    def settled(self) -> bool:
        """Waits until nothing of what was called is at work any more; False: something still is."""
        return True

    @abstractmethod
    def yardstick(self, group: str, case: Case, sets: Sequence[Inputs]) -> Callable[[], float]:
        """What the device reaches without attention, a second: multiply-adds as flops, or bytes
        read in the group decode."""
