"""The numbers of a result as texts, for the tables of the terminal and of the README."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .cases import NONE
from .side_by_side import Outcome, Row


def case_label(row: Row) -> str:
    return f"{row['shape']}{' causal' if row['causal'] else ''}"


def failure(outcome: Outcome) -> str | None:
    """Why there are no numbers, in a word; the sentence stands below the table."""
    return next((word for word in ("wrong", "refused") if word in outcome), None)


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


def decode_cells(row: Row, outcome: Outcome) -> list[str]:
    if word := failure(outcome):
        return [word]
    rate = row["kv_bytes"] / outcome["seconds"] / 1e9
    part = f"{rate / outcome['best']:.2f}"
    return [*time_cells(row, outcome, 1e3), f"{rate:.1f}", part]


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


COLUMNS: dict[str, Sequence[str]] = {
    "prefill": ("ms", "spread", "over\nfanano", "GFLOP/s", "of the\npeak"),
    "decode": ("ms", "spread", "over\nfanano", "GB/s", "of band-\nwidth"),
    "backward": ("ms", "spread", "over\nfanano", "GFLOP/s", "of the\npeak"),
    "call": ("us", "spread", "over\nfanano"),
    "memory": ("MiB", "of the\noutput"),
}
CELLS: dict[str, Callable[[Row, Outcome], list[str]]] = {
    "prefill": prefill_cells,
    "decode": decode_cells,
    "backward": prefill_cells,
    "call": call_cells,
    "memory": memory_cells,
}
