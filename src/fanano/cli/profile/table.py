"""The table that is printed."""

from __future__ import annotations

import math
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .measuring import PROFILERS

Row = dict[str, Any]

CLOCKS = {
    "cpu": "clock: wall time of a call without a profiler",
    "cuda": "clock: between events in the stream around a call, without a profiler",
}
NOTE = (
    "{clock}; CPU: of all threads. legacy, torch: what torch.autograd.profiler.profile and "
    "torch.profiler.profile say; off: against that clock around the calls that they saw; apart: "
    "legacy against torch, each against that clock. Operators, of torch on a device kernels: "
    "without those inside of them. What to believe: docs/profiling.md."
)


def show(console: Console, result: Row) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    console.print(f"{result['date']}, {result['machine']}, {versions}")
    shape = f"({', '.join(map(str, result['shape']))}) {result['dtype']}"
    mask = "causal" if result["causal"] else "full"
    rounds = f"medians of {result['rounds']} round(s)"
    times = plain(f"{shape}, {mask}: ms a call, {rounds}", "range\n  operator")
    for column in ("clock", "CPU", "legacy", "off", "torch", "off", "apart"):
        times.add_column(column, justify="right", no_wrap=True)
    slower = plain("Time of a call under a profiler, over that without", "range")
    for column in ("legacy", "torch"):
        slower.add_column(column, justify="right")
    for row in result["rows"]:
        if "operator" in row:
            times.add_row(*operator_cells(row))
        else:
            times.add_row(*range_cells(row), style="bold")
            slower.add_row(row["range"], *(f"{over_plain(row, way):.2f}x" for way in PROFILERS))
    console.print(times)
    console.print(slower)
    console.print(NOTE.format(clock=CLOCKS[result["device"]]))
    for name, words in result["missing"].items():
        console.print(f"{name}: not there, {words}")


def plain(title: str, first: str) -> Table:
    """Narrow enough for 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, title=title)
    table.title_justify = "left"
    table.add_column(first, no_wrap=True, min_width=28, max_width=28)
    return table


def range_cells(row: Row) -> list[str]:
    clocks = [ms(row[name]) for name in ("clock", "cpu")]
    said = [cell for way in PROFILERS for cell in (ms(row[way]["says"]), percent(row[way]["off"]))]
    return [row["range"], *clocks, *said, percent(apart(row))]


def operator_cells(row: Row) -> list[str]:
    legacy, torch = (row[way] for way in PROFILERS)
    both = legacy["says"] and torch["says"]
    off = percent(apart(row)) if both else "one only"
    return [f"  {row['operator']}", "", "", ms(legacy["says"]), "", ms(torch["says"]), "", off]


def apart(row: Row) -> float:
    """How much more the legacy profiler says than the other, of the same time; NaN where that one
    says nothing."""
    legacy, torch = (1 + row[way]["off"] for way in PROFILERS)
    return float(legacy / torch - 1) if torch else math.nan


def over_plain(row: Row, way: str) -> float:
    return float(row[way]["clock"] / row["clock"])


def ms(seconds: float) -> str:
    """Of at most five characters, so that names keep theirs."""
    number = 1e3 * seconds
    return (
        f"{number:.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.1 else f"{number:.3f}"
    )


def percent(part: float) -> str:
    return f"{100 * part:+.{abs(part) < 0.1:d}f}%"
