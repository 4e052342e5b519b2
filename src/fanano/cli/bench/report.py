"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .cells import (
    CELLS,
    COLUMNS,
    by_head_size,
    case_label,
    device_of,
    failure,
    machine_of,
    option_cell,
    size_cells,
)
from .session import Result
from .side_by_side import Row

TITLES = {
    "prefill": "Prefill",
    "decode": "Decode",
    "backward": "Backward",
    "call": "Call",
    "sizes": "Head sizes, (1, 8, S, D)",
    "options": "Options of fanano.attention, (1, 8, S, D)",
    "memory": "Memory",
}
SHAPES = "shapes: (batch, heads/key heads, rows over keys, dim)"
NOTES = {
    "prefill": f"{SHAPES}; peak: multiply-adds in registers, bfloat16's where the CPU has "
    "them, measured before and after each call, against wall time and in brackets against CPU time",
    "decode": f"{SHAPES}; GB/s: keys and values, each once; bandwidth: of loads alone from the "
    "same memory, before and after each call; more keys and values take turns than caches hold",
    "backward": f"{SHAPES}; the backward pass alone, given what its forward pass kept; its flops "
    "are counted as 2.5 times those of the forward pass, whose causal ones are those on and below "
    "the diagonal; peak: as for prefill",
    "call": "one row, one key: nearly all of it is the cost of a call",
    "sizes": "fanano alone, without a mask: GFLOP/s, and their part of the peak, as for prefill",
    "options": "time over that of the same call without the option",
    "memory": "peak above the inputs, the output included, each in a process of its own",
}


CUDA_NOTES = {
    "prefill": f"{SHAPES}; flops of causal masks: on and below the diagonal; product: torch's of "
    "square matrices, before and after each sample; error: the largest difference from float64",
    "decode": f"{SHAPES}; GB/s: keys and values, each once; bandwidth: of torch's sum of as much "
    "as many L2 caches, before and after each sample",
    "backward": f"{SHAPES}; the backward pass alone, its flops counted as 2.5 times those of the "
    'forward pass; "repeats": torch\'s deterministic algorithms',
}


def show(console: Console, result: Result) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    console.print(f"{result['date']}, {machine_of(result)}, median of {result['rounds']} round(s)")
    console.print(f"{versions}\n")
    for group, title in TITLES.items():
        rows = [row for row in result["rows"] if row["group"] == group]
        for dtype in dict.fromkeys(row["dtype"] for row in rows):
            mine = [row for row in rows if row["dtype"] == dtype]
            make = TABLES.get(group, group_table)
            console.print(make(f"{title}, {dtype}", mine))
        if rows:
            note = NOTES if device_of(rows[0]) == "cpu" else CUDA_NOTES
            for line in [note[group], *clocks(rows), *remarks(rows)]:
                console.print(line)
            console.print()
    if result.get("left_out"):
        console.print(f"{result['left_out']} case(s) left out: the time was up")
    for library, said in result["settings"].items():
        console.print(f"{library}: {said}")


def plain(title: str) -> Table:
    """Narrow enough for 80 columns."""
    return Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        title=title,
        title_justify="left",
    )


def group_table(title: str, rows: Sequence[Row]) -> Table:
    """The cases one below the other, a line for each contender."""
    group, device = rows[0]["group"], device_of(rows[0])
    table = plain(title)
    table.add_column("contender", no_wrap=True)
    for column in COLUMNS[device][group]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(case_label(row), style="bold")
        for name, outcome in row["contenders"].items():
            table.add_row(f"  {name}", *CELLS[device][group](row, outcome))
        table.add_section()
    return table


def clocks(rows: Sequence[Row]) -> list[str]:
    """Of the device while the contenders were timed, in a line."""
    each = [x["mhz"] for row in rows for x in row["contenders"].values() if "mhz" in x]
    return [f"multiprocessors' clock: {min(each):.0f} to {max(each):.0f} MHz"] if each else []


def remarks(rows: Sequence[Row]) -> list[str]:
    """One line for each different thing to say, however many cases it holds for."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, outcome in row["contenders"].items():
            if word := failure(outcome):
                said.setdefault(f"{name}, {word}: {outcome[word]}", []).append(where(row))
            if outcome.get("restless"):
                line = f"{name}: its threads would not sleep after calls, and disturb the others"
                said.setdefault(line, []).append(where(row))
    return [f"{line} [{', '.join(places)}]" for line, places in said.items()]


def where(row: Row) -> str:
    return f"{case_label(row)} {row['dtype']}"


def options_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each option, a column for each case."""
    table = plain(title)
    table.add_column("option", no_wrap=True)
    for row in rows:
        table.add_column(f"S = {row['keys']}\nD = {row['dim']}", justify="right")
    for name in rows[0]["contenders"]:
        table.add_row(name, *(option_cell(row["contenders"], name) for row in rows))
    return table


def sizes_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each head size, two columns for each length."""
    table = plain(title)
    table.add_column("D", justify="right")
    by_size = by_head_size(rows)
    for row in by_size[0]:
        table.add_column(f"S = {row['keys']}\nGFLOP/s", justify="right")
        table.add_column("of the\npeak", justify="right")
    for line in by_size:
        cells = [cell for row in line for cell in size_cells(row)]
        table.add_row(str(line[0]["dim"]), *cells)
    return table


TABLES = {"options": options_table, "sizes": sizes_table}


def ours_failed(result: Result) -> bool:
    """Whether fanano itself was wrong somewhere, or did not run: no news about another library.

    Memory that cannot be measured here is no news about fanano either, nor is what README's table
    says is not there.
    """
    return any(
        failure(outcome) in ("wrong", "refused") and row["group"] != "memory"
        for row in result["rows"]
        for name, outcome in row["contenders"].items()
        if row["group"] == "options" or name.startswith("fanano")
    )
