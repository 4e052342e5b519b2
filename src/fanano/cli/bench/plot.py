"""The picture of a result: a panel for each group and dtype, a bar for each contender."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cases import NONE
from .cells import case_label, device_of, failure, machine_of
from .session import Result
from .side_by_side import Outcome, Row

UNITS = {
    "cpu": {
        "prefill": "GFLOP/s (line: multiply-adds)",
        "decode": "GB/s (line: reads by the read loop)",
        "backward": "GFLOP/s (line: multiply-adds)",
        "call": "microseconds a call",
        "sizes": "GFLOP/s (line: multiply-adds)",
        "options": "time over that without the option",
        "memory": "peak extra memory in MiB",
    },
    "cuda": {
        "prefill": "GFLOP/s (line: a matrix product)",
        "decode": "GB/s (line: a sum)",
        "backward": "GFLOP/s (line: a matrix product)",
    },
}


def height(row: Row, outcome: Outcome) -> float:
    """Of the bar of one contender; 0 where it has no number."""
    if failure(outcome) or failure(row["contenders"].get(NONE, {})):
        return 0.0
    if device_of(row) != "cpu" and "seconds" not in outcome:  # compared, and not timed
        return 0.0
    numbers: dict[str, Any] = row | outcome
    if row["group"] in ("prefill", "backward", "sizes"):
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
    if row["group"] in ("prefill", "decode", "backward", "sizes"):
        return max((x["best"] for x in row["contenders"].values() if "best" in x), default=None)
    return None


def draw(panel: Axes, rows: list[Row], colour: dict[str, str]) -> None:
    names = [name for name in colour if any(name in row["contenders"] for row in rows)]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        at = [place - 0.4 + width * (index + 0.5) for place in range(len(rows))]
        heights = [height(row, row["contenders"].get(name, {"refused": ""})) for row in rows]
        panel.bar(at, heights, width, label=name, color=colour[name])
    for place, row in enumerate(rows):
        if (line := limit(row)) is not None:
            panel.hlines(line, place - 0.45, place + 0.45, colors="black", linestyles="dotted")
    labels = [
        case_label(row).replace(" over", "\nover").replace(" causal", "\ncausal") for row in rows
    ]
    turned = 90 if len(rows) > 8 else 0  # side by side, more would overlap
    panel.set_xticks(range(len(rows)), labels, fontsize="xx-small", rotation=turned)
    panel.set_title(f"{rows[0]['group']}, {rows[0]['dtype']}", fontsize="medium")
    panel.set_ylabel(UNITS[device_of(rows[0])][rows[0]["group"]], fontsize="x-small")
    if rows[0]["group"] in ("call", "memory"):
        panel.set_yscale("symlog", linthresh=1)  # a small problem's memory may measure as none
    panel.grid(axis="y", alpha=0.3)
    panel.set_axisbelow(True)


def colours(rows: Iterable[Row]) -> dict[str, str]:
    """One for each contender, in their order."""
    names = dict.fromkeys(name for row in rows for name in row["contenders"])
    return {name: f"C{index % 10}" for index, name in enumerate(names)}


def plot(result: Result, file: str) -> None:
    """Draws a line of panels for each group, one for each dtype, into an image file.

    A Figure of its own, without pyplot, draws with Agg: no display and no window.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in result["rows"]:
        groups.setdefault(row["group"], {}).setdefault(row["dtype"], []).append(row)
    options = colours(row for row in result["rows"] if row["group"] == "options")
    contenders = colours(row for row in result["rows"] if row["group"] != "options")
    wide = max(map(len, groups.values()))
    longest = max(len(rows) for panels in groups.values() for rows in panels.values())
    width = max(6, 0.6 * longest) * wide
    figure = Figure(figsize=(3 + width, 1 + 3.3 * len(groups)), layout="constrained")
    parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for part, (group, panels) in zip(parts, groups.items(), strict=True):
        axes = part.subplots(1, wide, squeeze=False)[0]
        for panel, rows in zip(axes, panels.values(), strict=False):
            draw(panel, rows, options if group == "options" else contenders)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        part.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    machine = f"{result['date']}, {machine_of(result)}"
    figure.suptitle(f"{machine}\n{versions}", fontsize="small")
    figure.savefig(file, dpi=150)
