"""What a command says when it cannot go on; main() prints it without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec


class CommandError(Exception):
    """A mistake of the caller's or something missing on this machine, in words for people."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def require(command: str, packages: Iterable[str]) -> None:
    """Raises CommandError with the line that installs those of the packages that are missing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        line = f"pip install {' '.join(missing)}"
        raise CommandError(f"{command} needs {', '.join(missing)}; install with: {line}")
