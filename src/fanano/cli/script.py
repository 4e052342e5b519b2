"""A script or a module, loaded and run as the interpreter does it.

Not by runpy, which puts the old ``__main__`` back when the script ends: threads, exit handlers and
pickles of it still look for theirs.
"""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from pkgutil import get_importer
from types import CodeType, ModuleType, TracebackType
from typing import Any, NamedTuple

from .errors import CommandError


class Program(NamedTuple):
    """What there is to run: its name for sys.argv, where it lies, what is first on sys.path, its
    spec; a source without a spec is still to be compiled, for its errors are its own."""

    name: str
    file: str
    folder: str
    spec: ModuleSpec | None = None


def load_file(file: str) -> Program:
    """A script; or a folder or an archive with a ``__main__.py``."""
    path = Path(file)
    if not path.exists():
        raise CommandError(f"fanano run: can't open file {str(path.absolute())!r}", code=2)
    if not path.is_dir() and path.suffix not in (".zip", ".pyz"):
        return Program(file, str(path.absolute()), str(path.resolve().parent))
    importer: Any = get_importer(str(path.absolute()))
    spec = None if importer is None else importer.find_spec("__main__")
    if spec is None:
        raise CommandError(f"fanano run: can't find '__main__' module in {file!r}")
    return Program(file, spec.origin or file, str(path.absolute()), spec)


def load_module(name: str) -> Program:
    """A module, or the ``__main__`` of a package, by its name."""
    here = str(Path.cwd())
    sys.path.insert(0, here)  # where python -m looks first
    try:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = find_spec(name)
    except ModuleNotFoundError:  # a parent of it
        spec = None
    finally:
        sys.path.remove(here)
    if spec is None or spec.origin is None:
        raise CommandError(f"fanano run: No module named {name}")
    return Program(spec.origin, spec.origin, here, spec)


def execute(program: Program, arguments: Sequence[str]) -> int:
    """Runs it to its end and returns 0; what it raises comes out, with a traceback of its own."""
    name, file, folder, spec = program
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=file, __cached__=None, __annotations__={})
    main.__spec__, main.__package__ = spec, None
    main.__loader__ = SourceFileLoader("__main__", file)
    if spec is not None:
        main.__loader__, main.__package__ = spec.loader, spec.parent
        main.__dict__["__cached__"] = spec.cached
    sys.modules["__main__"] = main
    sys.argv = [name, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = folder
    code: CodeType | None = None
    try:
        code = compiled(program)
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        show = sys.excepthook  # the script's own, if it has one

        def hook(
            kind: type[BaseException], error: BaseException, traceback: TracebackType | None
        ) -> None:
            error.__traceback__ = since(code, traceback)
            show(kind, error, error.__traceback__)

        sys.excepthook = hook
        raise
    return 0


def compiled(program: Program) -> CodeType:
    if program.spec is not None:
        loader: Any = program.spec.loader
        code: CodeType = loader.get_code(program.spec.name)
        return code
    with io.open_code(program.file) as source:
        text = source.read()
    return compile(text, program.file, "exec", dont_inherit=True)


def since(code: CodeType | None, traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames above those of a code: ours."""
    while traceback is not None and traceback.tb_frame.f_code is not code:
        traceback = traceback.tb_next
    return traceback
