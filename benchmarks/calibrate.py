"""What the static report foretells beside what a GPU did: the calibration table.

    python benchmarks/calibrate.py REPORT.json RESULT.json [--json FILE]

REPORT.json is of `tests/cuda/report.py --json`, RESULT.json of `fanano bench --device cuda --json`.
Both are percent of one peak: the products of the tensor cores at the clock that the multiprocessors
had when the row was timed. The report's bound is that of the main loop alone, when everything
overlaps and nothing waits; "reached" is how much of it the whole call made of it. A bound that a
measurement exceeds is wrong, and so are the rates it was made from.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
MACHINES = {"9": "sm_90a", "8": "sm_80"}  # by the first number of the compute capability
# As tests/cuda prints it: flash_sm80_kernel<bfloat16, 64, false>.
KERNEL = re.compile(r"\w*sm(80|90)\w*<(?P<dtype>\w+), (?P<dim>\d+), (?P<general>true|false)\b.*>$")


def figures_for(report: Sequence[Row], machine: str, row: Row) -> Row | None:
    """Of the kernel that a row of the benchmark ran: without options the plain one, of the fewest
    columns that hold the head's; of several that make up a pass, the one with the least bound."""
    fits = []
    for figures in report:
        match = KERNEL.match(figures["kernel"])
        if not match or figures["machine"] != machine or match["general"] == "true":
            continue
        of_backward = "backward" in figures["kernel"]
        if match["dtype"] != row["dtype"] or of_backward != (row["group"] == "backward"):
            continue
        if int(match["dim"]) >= row["dim"]:
            fits.append((int(match["dim"]), figures["numbers"]["bound"], figures))
    return min(fits, key=lambda fit: fit[:2])[2] if fits else None


def peak(result: Row, figures: Row, mhz: float) -> float:
    """TFLOP/s of the tensor cores of all multiprocessors at this clock."""
    a_clock = 2.0 * figures["numbers"]["peak"] * result["multiprocessors"]
    return a_clock * mhz / 1e6


def table(report: Sequence[Row], result: Row) -> Iterator[Row]:
    major = str(result["capability"]).split(".")[0]
    machine = MACHINES.get(major, f"compute capability {result['capability']}")
    for row in result["rows"]:
        outcome = row["contenders"].get("fanano", {})
        if row["group"] not in ("prefill", "backward") or "seconds" not in outcome:
            continue
        figures = figures_for(report, machine, row)
        if figures is None or not outcome.get("mhz"):
            continue
        rate = row["gflop"] / outcome["seconds"] / 1e3
        measured = 100 * rate / peak(result, figures, outcome["mhz"])
        bound = figures["numbers"]["bound"]
        yield {
            "kernel": figures["kernel"],
            "group": row["group"],
            "shape": row["shape"] + " causal" * row["causal"],
            "mhz": outcome["mhz"],
            "tflops": rate,
            "measured": measured,
            "bound": bound,
            "limit": figures["limit"],
            "reached": measured / bound,
        }


def lines(rows: Sequence[Row]) -> Iterator[str]:
    head = "kernel", "shape", "MHz", "TFLOP/s", "% of peak", "bound %", "by", "reached"
    yield from (f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head)))
    for row in rows:
        cells = [row["kernel"], row["shape"], f"{row['mhz']:.0f}", f"{row['tflops']:.3g}"]
        cells += [f"{row['measured']:.3g}", f"{row['bound']:.3g}", row["limit"]]
        yield f"| {' | '.join(cells)} | {row['reached']:.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    report, result = (json.loads(x.read_text()) for x in (arguments.report, arguments.result))
    if result.get("device") != "cuda":
        sys.exit(f"{arguments.result} is not of `fanano bench --device cuda`")
    rows = list(table(report, result))
    if not rows:
        sys.exit("no row of the benchmark has a kernel of the report and a clock")
    print(f"{result['date']}, {result['machine']}")
    print("\n".join(lines(rows)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    wrong = [row["kernel"] for row in rows if row["reached"] > 1]
    for kernel in dict.fromkeys(wrong):
        print(f"{kernel} exceeds its bound: the rates of static_report/machines.py are too low")
    return 0


if __name__ == "__main__":
    sys.exit(main())
