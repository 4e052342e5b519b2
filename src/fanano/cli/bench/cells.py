"""The numbers of a result as texts, for the tables of the terminal and of the README."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .cases import NONE
from .machine import in_words
from .side_by_side import Outcome, Row


def case_label(row: Row) -> str:
    return f"{row['shape']}{' causal' if row['causal'] else ''}"


def failure(outcome: Outcome) -> str | None:
    """Why there are no numbers, in a word; the sentence stands below the table."""
    return next((word for word in ("wrong", "refused", "missing") if word in outcome), None)


def option_cell(contenders: dict[str, Outcome], name: str) -> str:
    if word := failure(contenders[name]):
        return word
    seconds, plain = contenders[name]["seconds"], contenders[NONE].get("seconds")
    if name == NONE or plain is None:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds / plain:.2f}"


def prefill_cells(row: Row, outcome: Outcome) -> list[str]:
    if word := failure(outcome):
        return [word]
    rate = row["gflop"] / outcome["seconds"]
    peak = outcome["best"]
    busy = row["gflop"] * row["threads"] / outcome["cpu_seconds"]
    part = f"{rate / peak:.2f} ({busy / peak:.2f})"
    return [*time_cells(row, outcome, 1e3), f"{rate:.0f}", part]


def by_head_size(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each, in the order of their lengths."""
    lines: dict[int, list[Row]] = {}
    for row in rows:
        lines.setdefault(row["dim"], []).append(row)
    return list(lines.values())


def size_cells(row: Row) -> list[str]:
    """Of fanano alone: the rate, and its parts of the peak."""
    outcome = row["contenders"]["fanano"]
    if word := failure(outcome):
        return [word, ""]
    return prefill_cells(row, outcome)[-2:]


def decode_cells(row: Row, outcome: Outcome) -> list[str]:
    if word := failure(outcome):
        return [word]
    rate = row["kv_bytes"] / outcome["seconds"] / 1e9
    part = f"{rate / outcome['best']:.2f}"
    return [*time_cells(row, outcome, 1e3), f"{rate:.1f}", part]


def cuda_cells(row: Row, outcome: Outcome) -> list[str]:
    """Of rates in TFLOP/s, or of a decode in GB/s."""
    if word := failure(outcome):
        return ["-" if word == "missing" else word]
    error = f"{outcome['error']:.1e}"
    if "seconds" not in outcome:
        return [*[""] * 5, error]
    amount = row["kv_bytes"] / 1e9 if row["group"] == "decode" else row["gflop"]
    rate = amount / outcome["seconds"]
    shown = f"{rate:.0f}" if row["group"] == "decode" else f"{rate / 1e3:.3g}"
    part = f"{rate / outcome['best']:.2f}"
    return [*time_cells(row, outcome, 1e3), shown, part, error]


def call_cells(row: Row, outcome: Outcome) -> list[str]:
    return [failure(outcome) or ""] if failure(outcome) else time_cells(row, outcome, 1e6)


def memory_cells(row: Row, outcome: Outcome) -> list[str]:
    if word := failure(outcome):
        return [word]
    return [f"{outcome['bytes'] / 2**20:.1f}", f"{outcome['bytes'] / row['output_bytes']:.1f}"]


def time_cells(row: Row, outcome: Outcome, unit: float) -> list[str]:
    """Median; how far the fastest and the slowest round are from it; over fanano's."""
    ours = row["contenders"].get("fanano", {}).get("seconds")
    over = f"{outcome['seconds'] / ours:.2f}x" if ours else "-"
    return [f"{outcome['seconds'] * unit:.3g}", spread(outcome), over]


def spread(outcome: Outcome) -> str:
    low, high = (100 * (outcome[x] / outcome["seconds"] - 1) for x in ("fastest", "slowest"))
    return f"{low:+.0f}/{high:+.0f} %"


TIMES = "ms", "spread", "over\nfanano"
# By the device and the group.
COLUMNS: dict[str, dict[str, Sequence[str]]] = {
    "cpu": {
        "prefill": (*TIMES, "GFLOP/s", "of the\npeak"),
        "decode": (*TIMES, "GB/s", "of band-\nwidth"),
        "backward": (*TIMES, "GFLOP/s", "of the\npeak"),
        "call": ("us", *TIMES[1:]),
        "memory": ("MiB", "of the\noutput"),
    },
    "cuda": {
        "prefill": (*TIMES, "TFLOP/s", "of the\nproduct", "error"),
        "decode": (*TIMES, "GB/s", "of band-\nwidth", "error"),
        "backward": (*TIMES, "TFLOP/s", "of the\nproduct", "error"),
    },
}
CELLS: dict[str, dict[str, Callable[[Row, Outcome], list[str]]]] = {
    "cpu": {
        "prefill": prefill_cells,
        "decode": decode_cells,
        "backward": prefill_cells,
        "call": call_cells,
        "memory": memory_cells,
    },
    "cuda": dict.fromkeys(("prefill", "decode", "backward"), cuda_cells),
}


def device_of(row: Row) -> str:
    """Files from before there was a choice do not say."""
    return str(row.get("device", "cpu"))


def machine_of(result: dict[str, Any]) -> str:
    """The line that heads tables; such files have its parts."""
    if "machine" in result:
        return str(result["machine"])
    return in_words(result["cpu"], result["threads"], result["isa"])
