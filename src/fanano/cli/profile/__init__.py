"""``fanano profile``: the same calls by torch's two profilers and by the clock, side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import errors

DTYPES = "float32", "bfloat16", "float16", "float64"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "profile",
        help="torch's two profilers and the clock, side by side",
        description="Runs attention forward and backward, with materialised scores and as flash "
        "attention, under torch.autograd.profiler.profile (the legacy profiler), under "
        "torch.profiler.profile and by the clock alone, by turns; shows what each says of the same "
        "calls: wall times, or those of a GPU. What to believe, and why: docs/profiling.md.",
        epilog="examples:\n"
        "  fanano profile\n"
        "  fanano profile --device cuda --dtype bfloat16 --tokens 4096\n"
        "  fanano profile --tokens 128 --dim 32 --trace trace.json  # for ui.perfetto.dev",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in ("batch", 1), ("heads", 8), ("tokens", 1024), ("dim", 64):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: %(default)s")
    parser.add_argument("--causal", action="store_true", help="with a causal mask")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of torch, and so of fanano's calls")
    parser.add_argument("--json", metavar="FILE", help="write every number (.json)")
    parser.add_argument(
        "--trace", metavar="FILE", help="write torch.profiler's Chrome trace (.json)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for name in ("batch", "heads", "tokens", "dim", "rounds", "threads"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise errors.CommandError(f"--{name} is {number}; expected 1 or more", code=2)
    if arguments.dim > 576:
        raise errors.CommandError(f"--dim is {arguments.dim}; expected at most 576", code=2)
    for option in ("json", "trace"):
        if file := getattr(arguments, option):
            errors.check_file(f"--{option}", file, (".json",))
    errors.require("fanano profile", ["torch", "rich"])

    # Only now: what these import may not be there.
    import torch
    from rich.console import Console

    from . import devices, measuring, table, workloads

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise errors.CommandError("--device cuda: torch finds no CUDA device that it can use")
    console = Console(highlight=False, markup=False, emoji=False)
    shape = arguments.batch, arguments.heads, arguments.tokens, arguments.dim
    before = torch.get_num_threads()
    torch.set_num_threads(arguments.threads or before)
    try:
        device = devices.BY_NAME[arguments.device]()
        every = workloads.calls(shape, arguments.dtype, arguments.causal, device.name)
        calls, missing = measuring.runnable(every)
        rows, trace = measuring.measure(calls, arguments.rounds, device)
        result = {
            **measuring.machine(device),
            "missing": missing,
            "shape": shape,
            "dtype": arguments.dtype,
            "causal": arguments.causal,
            "rounds": arguments.rounds,
            "rows": rows,
        }
    finally:
        torch.set_num_threads(before)
    table.show(console, result)
    if arguments.json:
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        Path(arguments.json).write_text(text, encoding="utf-8")
        console.print(f"numbers: {arguments.json}", soft_wrap=True)
    if arguments.trace:
        trace.export_chrome_trace(arguments.trace)
        console.print(f"trace: {arguments.trace}, for ui.perfetto.dev", soft_wrap=True)
    return 0
