"""``fanano explain``: the plan for shapes given on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from fanano import _core

from .errors import CommandError


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="how an attention call of these shapes would be carried out",
        description="Says how fanano.attention, or attention_backward, would carry out a call; "
        "allocates nothing for it.",
        epilog="examples:\n"
        "  fanano explain --query 1,8,2048,64\n"
        "  fanano explain --query 1,8,2048,64 --causal --backward\n"
        "  fanano explain --query 4,32,1,128 --kv-heads 8 --keys 4096 --dtype bfloat16\n"
        "  fanano explain --query 1,2048,8,64 --layout bshd --causal --algorithm safe",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--query", type=shape, required=True, metavar="SHAPE", help="B,H,S,D or H,S,D or S,D"
    )
    parser.add_argument("--kv-heads", type=int, metavar="N", help="heads of key and value")
    parser.add_argument("--keys", type=int, metavar="N", help="rows of key and value")
    parser.add_argument("--value-dim", type=int, metavar="N", help="last axis of value")
    parser.add_argument("--dtype", default="float32", help="default: %(default)s")
    parser.add_argument("--out-dtype", metavar="DTYPE", help="default: the inputs'")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--layout", default="bhsd", help="bhsd (the default) or bshd")
    parser.add_argument("--algorithm", default="flash", help="flash (default), online, safe, naive")
    parser.add_argument("--backward", action="store_true", help="of the gradients")
    parser.set_defaults(run=run)


def shape(text: str) -> tuple[int, ...]:
    try:
        extents = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 1,8,2048,64") from None
    if not 2 <= len(extents) <= 4:
        raise argparse.ArgumentTypeError(f"{text!r} has {len(extents)} axes; expected 2 to 4")
    return extents


def run(arguments: argparse.Namespace) -> int:
    key = list(arguments.query)
    rows, heads = (-3, -2) if arguments.layout == "bshd" and len(key) > 2 else (-2, -3)
    if arguments.keys is not None:
        key[rows] = arguments.keys
    if arguments.kv_heads is not None:
        if len(key) == 2:
            raise CommandError("--kv-heads: a query of 2 axes (S,D) has no heads", code=2)
        key[heads] = arguments.kv_heads
    value = list(key)
    if arguments.value_dim is not None:
        value[-1] = arguments.value_dim
    try:
        plan = _core.explain_shapes(
            arguments.query,
            tuple(key),
            tuple(value),
            arguments.dtype,
            out_dtype=arguments.out_dtype,
            is_causal=arguments.causal,
            layout=arguments.layout,
            algorithm=arguments.algorithm,
            backward=arguments.backward,
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise CommandError(str(error), code=2) from None
    print(plan)
    return 0
