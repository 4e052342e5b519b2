"""``fanano bench``: this machine, side by side with whatever else of attention is installed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fanano._core import most_threads

from .. import errors
from .cases import DTYPES, GROUPS

ROUNDS, QUICK_ROUNDS = 9, 3


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time this machine, side by side with what else is installed",
        description="Times fanano beside torch (flash and math), zentorch, JAX, onnxruntime and "
        "OpenVINO, whichever are installed, on the same numbers, forward and backward. Every "
        "result is compared with float64 before anything is timed. The contenders take turns; "
        "shown are medians, and how far the fastest and the slowest round are from them.",
        epilog="groups:\n"
        "  prefill  many rows: GFLOP/s, and their part of what multiply-adds reach here\n"
        "  decode   one row over a cache of keys: GB/s, and their part of what reads reach here\n"
        "  backward the gradients of prefill's shapes: GFLOP/s, counted as 2.5 times prefill's\n"
        "  call     one row, one key: what a call costs\n"
        "  options  what masks, ALiBi, sinks, softcap ... cost fanano\n"
        "  memory   peak extra memory of one call, each in a process of its own\n"
        "\n"
        "examples:\n"
        "  fanano bench --quick\n"
        "  fanano bench --group decode --dtype bfloat16 --peers torch,onnxruntime\n"
        "  fanano bench --backward --quick\n"
        "  fanano bench --json result.json --plot result.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="float32, small shapes, three rounds")
    parser.add_argument(
        "--group", action="append", choices=GROUPS, help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--backward",
        action="append_const",
        dest="group",
        const="backward",
        help="short for --group backward",
    )
    parser.add_argument(
        "--dtype", action="append", choices=DTYPES, help="may be repeated (default: all)"
    )
    parser.add_argument(
        "--peers",
        metavar="LIBRARIES",
        help="comma-separated: torch, zentorch, jax, onnxruntime, openvino (default: those "
        "that are installed); or none",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: fanano's number")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}")
    parser.add_argument("--json", metavar="FILE", help="write every number (.json)")
    parser.add_argument("--plot", metavar="FILE", help="draw them (.png, .svg, .pdf)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None and not 1 <= arguments.threads <= most_threads:
        expected = f"expected 1 to {most_threads}"
        raise errors.CommandError(f"--threads is {arguments.threads}; {expected}", code=2)
    if arguments.rounds is not None and arguments.rounds < 1:
        raise errors.CommandError(f"--rounds is {arguments.rounds}; expected 1 or more", code=2)
    if arguments.json:
        errors.check_file("--json", arguments.json, (".json",))
    if arguments.plot:
        errors.check_file("--plot", arguments.plot, errors.PICTURES)
    dtypes = arguments.dtype or (DTYPES[:1] if arguments.quick else DTYPES)
    needed = ["numpy", "rich"] + ["ml_dtypes"] * ("bfloat16" in dtypes)
    errors.require("fanano bench", needed + ["matplotlib"] * bool(arguments.plot))

    # Only now: what these import may not be there.
    from rich.console import Console

    from . import peers, report, session

    groups = arguments.group or GROUPS
    asked = None if arguments.peers is None else arguments.peers.replace(",", " ").split()
    contenders = peers.chosen([] if asked == ["none"] else asked, groups)
    console = Console(highlight=False, markup=False, emoji=False)
    result = session.run(
        console,
        contenders,
        groups,
        dtypes=[dtype for dtype in DTYPES if dtype in dtypes],
        quick=arguments.quick,
        threads=arguments.threads,
        rounds=arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS),
    )
    report.show(console, result)
    if arguments.json:
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        Path(arguments.json).write_text(text, encoding="utf-8")
        console.print(f"numbers: {arguments.json}", soft_wrap=True)
    if arguments.plot:
        from .plot import plot

        plot(result, arguments.plot)
        console.print(f"plot: {arguments.plot}", soft_wrap=True)
    return int(report.ours_failed(result))
