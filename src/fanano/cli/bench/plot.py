"""The picture of a result: a panel for each group and dtype, a bar for each contender."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cases import NONE
from .cells import failure
from .session import Result
from .side_by_side import Outcome, Row

UNITS = {
    "prefill": "GFLOP/s (line: the multiply-adds of this machine)",
    "decode": "GB/s of keys and values (line: numpy.max)",
    "call": "microseconds a call",
    "options": "time over that without the option",
    "memory": "peak extra memory in MiB",
}


def height(row: Row, outcome: Outcome) -> float:
    """Of the bar of one contender; 0 where it has no number."""
    if failure(outcome):
        return 0.0
    numbers: dict[str, Any] = row | outcome
    if row["group"] == "prefill":
        return float(numbers["gflop"] / numbers["seconds"])
    if row["group"] == "decode":
        return float(numbers["kv_bytes"] / numbers["seconds"] / 1e9)
    if row["group"] == "call":
        return float(numbers["seconds"] * 1e6)
    if row["group"] == "memory":
        return float(numbers["bytes"] / 2**20)
    return float(numbers["seconds"] / row["contenders"][NONE]["seconds"])


def limit(row: Row) -> float | None:
    """What a machine without other work reaches, in the unit of the bars."""
    if row["group"] == "decode":
        return float(row["read_gbs"])
    if row["group"] == "prefill":
        peaks = [x["peak_gflops"] for x in row["contenders"].values() if "peak_gflops" in x]
        return max(peaks, default=None)
    return None


def draw(panel: Axes, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row["contenders"]))
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        at = [place - 0.4 + width * (index + 0.5) for place in range(len(rows))]
        heights = [height(row, row["contenders"].get(name, {"refused": ""})) for row in rows]
        panel.bar(at, heights, width, label=name)
    for place, row in enumerate(rows):
        if (line := limit(row)) is not None:
            panel.hlines(line, place - 0.45, place + 0.45, colors="black", linestyles="dotted")
    labels = [f"{row['shape']}\n{'causal' if row['causal'] else ''}" for row in rows]
    panel.set_xticks(range(len(rows)), labels, fontsize="x-small")
    panel.set_title(f"{rows[0]['group']}, {rows[0]['dtype']}", fontsize="medium")
    panel.set_ylabel(UNITS[rows[0]["group"]], fontsize="small")
    if rows[0]["group"] == "memory":
        panel.set_yscale("log")
    panel.grid(axis="y", alpha=0.3)
    panel.set_axisbelow(True)
    panel.legend(fontsize="x-small", ncols=2)


def plot(result: Result, file: str) -> None:
    """Draws every group and dtype below each other into an image file.

    A Figure of its own, without pyplot, draws with Agg: no display and no window.
    """
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in result["rows"]:
        panels.setdefault((row["group"], row["dtype"]), []).append(row)
    figure = Figure(figsize=(11, 3.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)
    for panel, rows in zip(axes[:, 0], panels.values(), strict=True):
        draw(panel, rows)
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    machine = f"{result['date']}, {result['cpu']}, {result['threads']} threads"
    figure.suptitle(f"{machine}, ISA {result['isa']}\n{versions}", fontsize="small")
    figure.savefig(file, dpi=150)
