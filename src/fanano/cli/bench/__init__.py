"""``fanano bench``: this machine, side by side with whatever else of attention is installed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fanano._core import most_threads

from .. import errors
from .cases import CUDA_DTYPES, CUDA_GROUPS, DTYPES, GROUPS, OTHERS_DTYPES

ROUNDS, QUICK_ROUNDS = 9, 3


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="time this machine, side by side with what else is installed",
        description="Times fanano beside torch (flash and math), zentorch, JAX, onnxruntime and "
        "OpenVINO, whichever are installed, on the same numbers, forward and backward. Every "
        "result is compared with float64 before anything is timed. The contenders take turns; "
        "shown are medians, and how far the fastest and the slowest round are from them. With "
        "--device cuda: torch's tensors on a GPU, beside torch's flash, cuDNN, efficient and math "
        "back ends, over the grid of the FlashAttention papers, timed by events.",
        epilog="groups:\n"
        "  prefill  many rows: GFLOP/s, and their part of what multiply-adds reach here\n"
        "  decode   one row over a cache of keys: GB/s, and their part of what reads reach here\n"
        "  backward the gradients of prefill's shapes: GFLOP/s, counted as 2.5 times prefill's\n"
        "  call     one row, one key: what a call costs\n"
        "  sizes    fanano alone, over head sizes and lengths, float64 too: part of the peak\n"
        "  options  what masks, ALiBi, sinks, softcap ... cost fanano\n"
        "  memory   peak extra memory of one call, each in a process of its own\n"
        "\n"
        "examples:\n"
        "  fanano bench --quick\n"
        "  fanano bench --group decode --dtype bfloat16 --peers torch,onnxruntime\n"
        "  fanano bench --backward --quick\n"
        "  fanano bench --json result.json --plot result.png\n"
        "  fanano bench --device cuda --dtype bfloat16 --seconds 120 --json result.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="one dtype, few and small shapes, three rounds"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument(
        "--group",
        action="append",
        choices=GROUPS,
        help=f"may be repeated (default: all; cuda: {', '.join(CUDA_GROUPS)})",
    )
    parser.add_argument(
        "--backward",
        action="append_const",
        dest="group",
        const="backward",
        help="short for --group backward",
    )
    parser.add_argument(
        "--dtype",
        action="append",
        choices=DTYPES,
        help="may be repeated (default: all, float64 for sizes alone; cuda: "
        f"{', '.join(CUDA_DTYPES)})",
    )
    parser.add_argument(
        "--peers",
        metavar="LIBRARIES",
        help="comma-separated: torch, zentorch, jax, onnxruntime, openvino (default: those "
        "that are installed); or none",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: fanano's number")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="after so many, no further case is begun"
    )
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
    on_cuda = arguments.device == "cuda"
    known = CUDA_GROUPS if on_cuda else GROUPS
    groups = arguments.group or known
    for group in set(groups) - set(known):
        expected = f"expected {', '.join(known)}"
        raise errors.CommandError(f"--device cuda --group {group}: {expected}", code=2)
    every = CUDA_DTYPES if on_cuda else DTYPES if "sizes" in groups else OTHERS_DTYPES
    dtypes = arguments.dtype or (every[:1] if arguments.quick else every)
    if "float64" in dtypes and (on_cuda or "sizes" not in groups):
        expected = f"expected {', '.join(CUDA_DTYPES if on_cuda else OTHERS_DTYPES)}"
        beside = "" if on_cuda else ", or --group sizes beside it"
        raise errors.CommandError(f"--dtype float64: {expected}{beside}", code=2)
    needed = ["numpy", "rich"]
    needed += ["torch"] if on_cuda else ["ml_dtypes"] * ("bfloat16" in dtypes)
    errors.require("fanano bench", needed + ["matplotlib"] * bool(arguments.plot))

    # Only now: what these import may not be there.
    from rich.console import Console

    from . import devices, peers, report, session

    def save(result: session.Result) -> None:
        if arguments.json:
            text = json.dumps(result, indent=1, allow_nan=False) + "\n"
            Path(arguments.json).write_text(text, encoding="utf-8")

    asked = None if arguments.peers is None else arguments.peers.replace(",", " ").split()
    contenders = peers.chosen([] if asked == ["none"] else asked, groups, arguments.device)
    console = Console(highlight=False, markup=False, emoji=False)
    result = session.run(
        console,
        devices.BY_NAME[arguments.device](),
        contenders,
        groups,
        dtypes=dtypes,
        quick=arguments.quick,
        threads=arguments.threads,
        rounds=arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS),
        seconds=arguments.seconds,
        save=save,
    )
    report.show(console, result)
    if arguments.json:
        console.print(f"numbers: {arguments.json}", soft_wrap=True)
    if arguments.plot:
        from .plot import plot

        plot(result, arguments.plot)
        console.print(f"plot: {arguments.plot}", soft_wrap=True)
    return int(report.ours_failed(result))
