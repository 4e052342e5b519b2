"""The picture of the demo's second half."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from .long_sequences import DIM, HEADS, Measured

LINES = {"safe": ("o", "safe (materialised)"), "flash": ("s", "flash")}
PANELS = (("seconds", "time in s", 1), ("memory", "peak extra memory in MiB", 2**20))


def plot(rows: Sequence[Measured], file: str) -> None:
    """Draws time and memory over S, both axes logarithmic, into an image file.

    A Figure of its own, without pyplot, draws with Agg: no display and no window.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    ticks = sorted({row.tokens for row in rows})
    for panel, (field, label, unit) in zip(figure.subplots(1, 2), PANELS, strict=True):
        for algorithm, (mark, name) in LINES.items():
            mine = [row for row in rows if row.algorithm == algorithm]
            known = [row for row in mine if getattr(row, field) is not None]
            x, y = [row.tokens for row in known], [getattr(row, field) / unit for row in known]
            left_out = ", ".join(str(row.tokens) for row in mine if row.seconds is None)
            name += f"; does not fit: S = {left_out}" if left_out else ""
            panel.loglog(x, y, marker=mark, label=name)
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.set_xlabel("S (tokens)")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(f"fanano.attention, (1, {HEADS}, S, {DIM}), float32")
    figure.savefig(file, dpi=150)
