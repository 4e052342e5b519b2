"""Writes the measured table into the README, between its two markers.

python benchmarks/readme_table.py benchmarks/results/NAME.json [--readme README.md] [--check]

The JSON comes from side_by_side.py. --check changes nothing and fails if the README's table is not
the one that the file gives.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"


def gflop(row: dict[str, Any]) -> float:
    """Two products of Sq x Sk x D each; causal visits the pairs on and below the diagonal."""
    batch, heads, tokens, dim = row["shape"]
    pairs = tokens * (tokens + 1) / 2 if row["causal"] else tokens * tokens
    return 4 * batch * heads * pairs * dim / 1e9


def cell(times: dict[str, float]) -> str:
    """Median milliseconds; how far the fastest and the slowest round are from it, in per cent."""
    median = times["seconds"]
    below, above = (100 * (times[key] / median - 1) for key in ("fastest", "slowest"))
    return f"{1e3 * median:.1f} ({below:+.0f}/{above:+.0f} %)"


def table(result: dict[str, Any]) -> str:
    head = ["dtype", "shape", "mask", "fanano flash, ms", "torch, ms", "fanano safe, ms"]
    head += ["flash over torch", "GFLOP/s", "of the FMA peak"]
    lines = [head, ["---"] * len(head)]
    for row in result["rows"]:
        flash, torch, safe = (row["times"][name] for name in ("flash", "torch", "safe"))
        rate = gflop(row) / flash["seconds"]
        shape = f"({', '.join(map(str, row['shape']))})"
        cells = [row["dtype"], shape, "causal" if row["causal"] else "full"]
        cells += [cell(flash), cell(torch), cell(safe)]
        cells += [f"{torch['seconds'] / flash['seconds']:.2f}x", f"{rate:.0f}"]
        busy = gflop(row) / (flash["cpu_seconds"] / result["threads"])
        cells += [f"{rate / flash['peak_gflops']:.2f} ({busy / flash['peak_gflops']:.2f})"]
        lines.append(cells)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join(
        [
            f"{result['date']}, {result['cpu']}, {result['threads']} threads, "
            f"ISA {result['isa']}; {versions}. Medians of nine interleaved rounds, in brackets the "
            "fastest and the slowest; results compared with float64 before timing. The FMA peak is "
            "float32, measured before and after each call; the ratio to it by wall time, in "
            "brackets by CPU time.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON written by side_by_side.py")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    old = arguments.readme.read_text(encoding="utf-8")
    block = f"{BEGIN}\n{table(json.loads(arguments.file.read_text()))}\n{END}"
    new, count = re.subn(rf"{BEGIN}.*?{END}", lambda _: block, old, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{arguments.readme}: expected one pair of {BEGIN} and {END}, found {count}")
    if arguments.check:
        return int(new != old)
    arguments.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
