"""What is to happen when a module is imported, by whoever does: nothing is imported for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Calls then() right after the first import of a module; now, if that has been."""
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, Finder(name, then))


class Finder(MetaPathFinder):
    """Finds one module as the others would, and lets a Follower load it: for those who look only,
    too, until it has been imported."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self.then = name, then
        self.asking = threading.local()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name or getattr(self.asking, "others", False):
            return None
        self.asking.others = True
        try:
            spec = find_spec(name)
        finally:
            self.asking.others = False
        if spec is not None and spec.loader is not None:
            spec.loader = Follower(spec.loader, self)
        return spec

    def found(self) -> None:
        """The module is there."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.then()


class Follower(Loader):
    """A loader, and what follows it; the module knows of the former only."""

    def __init__(self, loader: Loader, finder: Finder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finder.found()
