"""The command line: ``fanano info``, ``explain``, ``demo``, ``bench``, ``profile``, ``run``.

Each command is a module with ``add_parser`` and ``run``; what it needs beyond the standard library
is imported inside ``run``, so that ``fanano info`` works in an environment with only fanano.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from fanano import __version__, get_num_threads, kernels

from . import bench, demo, explain, info, profile, run
from .errors import CommandError

__all__ = ["main"]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fanano",
        description="Exact FlashAttention for every array library, on the machine you have.",
        epilog="examples:\n"
        "  fanano info\n"
        "  fanano explain --query 1,8,2048,64 --kv-heads 2 --dtype bfloat16 --causal\n"
        '  fanano demo --query "How much memory does attention need?"\n'
        "  fanano bench --quick\n"
        "  fanano run train.py --steps 100",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fanano {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (info, explain, demo, bench, profile, run):
        command.add_parser(commands)
    return parser


def check_environment() -> None:
    """FANANO_ISA and FANANO_NUM_THREADS are read at first use: mistakes show here."""
    try:
        kernels()
        get_num_threads()
    except ValueError as error:
        raise CommandError(str(error), code=2) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    0: done. 1: the command could not be carried out (a package or a file is missing). 2: the
    command line asks for something wrong; argparse itself leaves by SystemExit(2).
    """
    arguments = make_parser().parse_args(argv)
    try:
        check_environment()
        code: int | Callable[[], int] = arguments.run(arguments)
        sys.stdout.flush()
    except CommandError as error:
        print(f"fanano: error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("fanano: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader went away (`fanano info | head -1`): no second flush into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else code()  # what raises errors of its own
