"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .cells import CELLS, COLUMNS, case_label, failure, option_cell
from .session import Result
from .side_by_side import Row

TITLES = {
    "prefill": "Prefill: many rows",
    "decode": "Decode: one row over a cache of keys and values",
    "call": "Call: one row, one key",
    "options": "Options: time over that of the same call without them",
    "memory": "Memory: peak above the inputs, measured, the output included",
}
NOTES = {
    "prefill": "peak: float32 multiply-adds in registers, measured before and after each call; "
    "in brackets by CPU time instead of wall time",
    "decode": "GB/s: keys and values, read once; bandwidth: what numpy.max reads on as many "
    "threads in the same run; keys and values of several calls take turns, more of them than the "
    "caches hold",
}


def show(console: Console, result: Result) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    console.print(
        f"{result['date']}, {result['cpu']}, {result['threads']} thread(s), ISA {result['isa']}"
    )
    console.print(versions)
    for group, title in TITLES.items():
        rows = [row for row in result["rows"] if row["group"] == group]
        if not rows:
            continue
        console.print()
        if group == "options":
            console.print(options_table(title, rows))
        else:
            console.print(group_table(group, title, rows))
        if group in NOTES:
            console.print(NOTES[group])
        for line in remarks(rows):
            console.print(line)
    console.print()
    for library, said in result["settings"].items():
        console.print(f"{library}: {said}")


def group_table(group: str, title: str, rows: Sequence[Row]) -> Table:
    """A line for each contender, the cases one below the other."""
    columns, cells = COLUMNS[group], CELLS[group]
    table = Table("case", "contender", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        label = case_label(row)
        for name, outcome in row["contenders"].items():
            table.add_row(label, name, *cells(row, outcome))
            label = ""
        table.add_section()
    return table


def remarks(rows: Sequence[Row]) -> list[str]:
    """One line for each different thing to say, however many cases it holds for."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for name, outcome in row["contenders"].items():
            if word := failure(outcome):
                said.setdefault(f"{name}, {word}: {outcome[word]}", []).append(case_label(row))
            if outcome.get("restless"):
                line = f"{name}: its threads would not sleep after calls, and disturb the others"
                said.setdefault(line, []).append(case_label(row))
    return [f"{line} [{', '.join(where)}]" for line, where in said.items()]


def options_table(title: str, rows: Sequence[Row]) -> Table:
    """A line for each option, a column for each case."""
    table = Table("option", title=title, title_justify="left")
    for row in rows:
        table.add_column(case_label(row), justify="right")
    for name in rows[0]["contenders"]:
        table.add_row(name, *(option_cell(row["contenders"], name) for row in rows))
    return table


def ours_failed(result: Result) -> bool:
    """Whether fanano itself was wrong somewhere, or did not run: no news about another library."""
    return any(
        failure(outcome)
        for row in result["rows"]
        for name, outcome in row["contenders"].items()
        if row["group"] == "options" or name.startswith("fanano")
    )
