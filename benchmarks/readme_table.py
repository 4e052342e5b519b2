"""Writes measured tables into the README, between its two markers.

python benchmarks/readme_table.py benchmarks/results/NAME.json... [--readme README.md] [--check]

The files come from `fanano bench --json`; a plot of the same name beside one is shown above its
tables. --check changes nothing and fails if the README's tables are not those that the files give.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fanano.cli.bench.cells import (
    CELLS,
    COLUMNS,
    by_head_size,
    device_of,
    failure,
    machine_of,
    option_cell,
    size_cells,
)

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"
TITLES = {
    "prefill": "Prefill: fanano's median, its fastest and slowest round, its rate and the part of "
    "the FMA peak that this is by wall time (by CPU time); of the others, time over fanano's.",
    "decode": "Decode, one row over a cache of keys: fanano's median, its fastest and slowest "
    "round, keys and values read a second and the part that this is of what loads alone reach, "
    "measured before and after each call; of the others, time over fanano's.",
    "backward": "Backward, the gradients by query, key and value, given what the forward pass "
    "kept; columns as for prefill, the flops counted as 2.5 times those of the forward pass, "
    "whose causal ones are those on and below the diagonal.",
    "call": "A call of one row and one key, in microseconds; of the others, time over fanano's.",
    "sizes": "Head sizes, (1, 8, S, D) without a mask, fanano alone: GFLOP/s, and their part of "
    "the FMA peak by wall time (by CPU time).",
    "options": "Options of `fanano.attention`, (1, 8, S, D): time over that of the same call "
    "without them.",
    "memory": "Peak memory of one call above its inputs, the output included, in MiB.",
}

CUDA_TITLES = {
    "prefill": "Prefill on a GPU: fanano's median, its fastest and slowest round, its rate and the "
    "part of it that torch's product of square matrices reaches, the largest difference from "
    "float64; of the others, time over fanano's.",
    "decode": "Decode on a GPU, one row over a cache of keys: columns as above, keys and values "
    "read a second and the part that this is of what torch's sum reads.",
    "backward": "Backward on a GPU: columns as for prefill, the flops counted as 2.5 times those "
    "of the forward pass.",
}

Row = dict[str, Any]


def table(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *rest = lines
    for cells in [head, ["---"] * len(head), *rest]:
        yield f"| {' | '.join(cells)} |"


def group_lines(group: str, rows: Sequence[Row]) -> Iterator[list[str]]:
    """All that is known of fanano, and of each other contender how it compares."""
    others = dict.fromkeys(name for row in rows for name in row["contenders"] if name != "fanano")
    device = device_of(rows[0])
    columns = [x.replace("-\n", "").replace("\n", " ") for x in COLUMNS[device][group]]
    compared = 0 if group == "memory" else columns.index("over fanano")
    mine = [column for column in columns if column not in ("over fanano", "of the output")]
    yield ["dtype", "shape", "mask", *(f"fanano, {mine[0]}", *mine[1:]), *others]
    for row in rows:
        cells = [row["dtype"], row["shape"], "causal" if row["causal"] else "full"]
        ours = dict(
            zip(columns, CELLS[device][group](row, row["contenders"]["fanano"]), strict=False)
        )
        cells += [ours.get(column, "") for column in mine]
        for name in others:
            outcome = row["contenders"].get(name, {"refused": ""})
            if word := failure(outcome):
                cells.append(word if word == "wrong" else "-")
            else:
                cells.append(CELLS[device][group](row, outcome)[compared])
        yield cells


def option_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    labels = [f"{row['dtype']}, S = {row['keys']}, D = {row['dim']}" for row in rows]
    yield ["option", *labels]
    for name in rows[0]["contenders"]:
        yield [name, *(option_cell(row["contenders"], name) for row in rows)]


def size_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    lengths = dict.fromkeys(row["keys"] for row in rows)
    yield ["D", *(f"{dtype}, S = {keys}" for dtype in dtypes for keys in lengths)]
    for line in by_head_size(sorted(rows, key=lambda row: dtypes.index(row["dtype"]))):
        yield [str(line[0]["dim"]), *(", ".join(filter(None, size_cells(row))) for row in line)]


LINES = {"options": option_lines, "sizes": size_lines}


def tables(result: dict[str, Any], picture: str | None) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    on_cpu = result.get("device", "cpu") == "cpu"
    peak = (
        " the FMA peak is that of the dtype's products, measured before and after each call."
        if on_cpu
        else " caches overwritten before each call; product and sum measured around each sample."
    )
    yield (
        f"{result['date']}, {machine_of(result)}; "
        f"{versions}. Medians of {result['rounds']} interleaved rounds; every result compared with "
        f"float64 before timing;{peak} -: the library refused or failed."
    )
    if picture:
        yield ""
        yield f"![fanano bench, the same numbers as bars]({picture})"
    for group, title in (TITLES if on_cpu else CUDA_TITLES).items():
        rows = [row for row in result["rows"] if row["group"] == group]
        if rows:
            lines = LINES[group](rows) if group in LINES else group_lines(group, rows)
            yield from ["", title, "", *table(list(lines))]


def lines_of(file: Path, readme: Path) -> Iterator[str]:
    result = json.loads(file.read_text(encoding="utf-8"))
    if "rounds" not in result:
        sys.exit(f"{file} is not of `fanano bench --json`, but of a script before it")
    pictures = (file.with_suffix(suffix) for suffix in (".svg", ".png"))
    found = next((picture for picture in pictures if picture.exists()), None)
    return tables(result, os.path.relpath(found, readme.parent) if found else None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="file", help="JSON written by fanano bench --json"
    )
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    parts = ["\n".join(lines_of(file, arguments.readme)) for file in arguments.files]
    block = f"{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}"
    old = arguments.readme.read_text(encoding="utf-8")
    new, count = re.subn(rf"{BEGIN}.*?{END}", lambda _: block, old, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{arguments.readme}: expected one pair of {BEGIN} and {END}, found {count}")
    if arguments.check:
        return int(new != old)
    arguments.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
