"""``fanano run``: a script or a module as Python runs it, with fanano under torch's attention."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from . import errors


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        usage="fanano run [-h] (SCRIPT | -m MODULE) [ARGUMENT ...]",
        help="run a script with fanano under torch's attention",
        description="Runs an unmodified script, or a module, as `python SCRIPT` and `python -m "
        "MODULE` do: its arguments, __main__, exit code and tracebacks are the same. As soon as it "
        "imports torch, fanano.torch.install() puts fanano under "
        "torch.nn.functional.scaled_dot_product_attention, and at the end a line on standard error "
        "says how many calls fanano took over. Processes that it starts are not its own: they run "
        "with torch's attention.",
        epilog="examples:\n  fanano run train.py --steps 100\n  fanano run -m my_package.evaluate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rest = argparse.REMAINDER  # options too: they are the script's
    parser.add_argument("-m", dest="module", nargs=rest, metavar="MODULE", help="as python -m")
    parser.add_argument("script", nargs=rest, metavar="SCRIPT", help="file, or folder, and its own")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> Callable[[], int]:
    """What is left to do when the command line has been found right: whatever a script raises is
    the interpreter's, and not the command line's."""
    given = [*(arguments.module or ()), *arguments.script]
    if not given:
        raise errors.CommandError("fanano run: expected a script, or -m and a module", code=2)
    errors.require("fanano run", ["torch"])

    from . import importing, script

    argument, *others = given
    load = script.load_file if arguments.module is None else script.load_module
    program = load(argument)
    importing.when_imported("torch", install)
    return partial(script.execute, program, others)


def install() -> None:
    """fanano under torch's attention, and what came of it as the last thing that is printed."""
    import fanano.torch

    fanano.torch.install()
    atexit.register(report, os.getpid())


def report(process: int) -> None:
    from fanano.torch.installing import calls

    if os.getpid() != process:  # forked of it
        return
    line = f"fanano: took over {calls['forward']} attention call(s) of torch's flash kernel"
    line += f" and {calls['backward']} of its backward" * bool(calls["backward"])
    line += f"; left {calls['left']} to torch" * bool(calls["left"])
    if not any(calls.values()):
        line += ", which got none: not with dropout, need_weights=True, or modules' fused path"
    print(line, file=sys.stderr, flush=True)
