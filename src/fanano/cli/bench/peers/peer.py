"""What the benchmark asks of a contender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from ..arrays import Array, Inputs
from ..cases import Case


class CannotRun(Exception):
    """Why a contender has no answer to a case, in words for its line of the table."""


@dataclass
class Bound:
    """A call on memory that the library reads and does not own: it is held here as long."""

    run: Callable[[], Any]
    result: Any
    held: Any

    def __call__(self) -> Any:
        self.run()
        return self.result


@dataclass
class Prepared:
    """A case made ready: all that happens once, outside of what is timed, has happened."""

    calls: Sequence[Callable[[], Any]]  # one for each set of keys and values
    # What a call returns, as (batch, heads, rows, dim) of the library that the inputs are of;
    # gradients as three of these.
    to_array: Callable[[Any], Any]
    what: str = ""  # which of the library's functions it is, where it has several


class Peer:
    """A contender. One object serves all cases; nothing is imported before `start`."""

    name: ClassVar[str]  # in tables and files
    library: ClassVar[str]  # what --peers and `installed` call it
    packages: ClassVar[tuple[str, ...]] = ()  # what must be there
    groups: ClassVar[tuple[str, ...]] = ("prefill", "decode", "call", "memory")
    devices: ClassVar[tuple[str, ...]] = ("cpu",)  # whose inputs it takes
    untimed: ClassVar[tuple[str, ...]] = ()  # on these it shows how exact one may be, no more

    def start(self, threads: int) -> str:
        """Imports the library, gives it so many threads, and says how they were kept quiet.

        Once for each library: contenders of the same one do the same here.
        """
        raise NotImplementedError

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        """Raises CannotRun where the library has no such attention."""
        raise NotImplementedError

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        """As prepare(), for the gradients by query, key and value; the forward pass is not timed.
        Asked of those with "backward" among their groups."""
        raise NotImplementedError

    def around(self) -> AbstractContextManager[Any]:
        """What surrounds its calls and is not timed."""
        return nullcontext()
