"""What a command says when it cannot go on; main() prints it without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

PICTURES = (".png", ".svg", ".pdf")


class CommandError(Exception):
    """A mistake of the caller's or something missing on this machine, in words for people."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # whoever keeps it out of this process says so like this
        return False


def require(command: str, packages: Iterable[str]) -> None:
    """Raises CommandError with the line that installs those of the packages that are missing."""
    missing = [package for package in packages if not installed(package)]
    if missing:
        line = f"pip install {' '.join(missing)}"
        raise CommandError(f"{command} needs {', '.join(missing)}; install with: {line}")


def check_file(option: str, file: str, suffixes: tuple[str, ...]) -> None:
    """Raises where the file could not be written: before the minutes of measuring, not after."""
    if Path(file).suffix.lower() not in suffixes:
        expected = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}" if suffixes[1:] else suffixes[0]
        raise CommandError(f"{option} {file}: expected a name in {expected}", code=2)
    if not Path(file).absolute().parent.is_dir():
        raise CommandError(f"{option} {file}: no such folder")
    if Path(file).is_dir():
        raise CommandError(f"{option} {file}: is a folder")
