"""The second half of the demo: time and memory of materialised and flash attention as S grows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fanano

from .memory import available_memory, peak_extra_memory

Array = np.ndarray[Any, Any]
HEADS, DIM = 2, 64
ALGORITHMS = ("safe", "flash")


@dataclass
class Measured:
    """One algorithm at one length; None: not measured."""

    tokens: int
    algorithm: str
    seconds: float | None = None
    memory: int | None = None  # bytes


def scores_memory(tokens: int) -> int:
    """Bytes of the materialised scores, float32."""
    return 4 * HEADS * tokens * tokens


def output_memory(tokens: int) -> int:
    return 4 * HEADS * tokens * DIM


def fits(tokens: int) -> bool:
    """Whether the materialised scores fit beside everything else on this machine."""
    available = available_memory()
    return available is None or scores_memory(tokens) < 0.8 * available


def rounds(tokens: int) -> int:
    """How often each algorithm is timed: the longest calls take seconds each."""
    return 9 if tokens <= 4096 else 3


def measure(tokens: int, tick: Callable[[], None]) -> tuple[list[Measured], float | None]:
    """Both algorithms at one length, and the largest difference of their results where both ran.

    tick is called after every call of either algorithm: rounds + 2 times for each that fits.
    """
    shape = (1, HEADS, tokens, DIM)
    query, key, value = np.random.default_rng(0).standard_normal((3, *shape), dtype=np.float32)

    def call(algorithm: str) -> Array:
        out: Array = fanano.attention(query, key, value, algorithm=algorithm)
        tick()
        return out

    def seconds(algorithm: str) -> float:
        start = time.perf_counter()
        call(algorithm)
        return time.perf_counter() - start

    def memory(algorithm: str) -> int | None:
        peak = peak_extra_memory(shape, algorithm)
        tick()
        return peak

    algorithms = ALGORITHMS if fits(tokens) else ("flash",)
    results = [call(algorithm) for algorithm in algorithms]  # before any timing: equal, and warm
    difference = float(np.abs(results[0] - results[-1]).max()) if len(results) > 1 else None
    if difference is not None and not difference < 1e-5:
        raise RuntimeError(f"safe and flash attention differ by {difference} at S = {tokens}")
    # By turns, so that a busy moment of the machine hits both alike.
    turns = [[seconds(algorithm) for algorithm in algorithms] for _ in range(rounds(tokens))]
    medians = [statistics.median(times) for times in zip(*turns, strict=True)]
    measured = {
        algorithm: Measured(tokens, algorithm, median, memory(algorithm))
        for algorithm, median in zip(algorithms, medians, strict=True)
    }
    return [measured.get(name, Measured(tokens, name)) for name in ALGORITHMS], difference


def run(console: Console, lengths: Sequence[int]) -> list[Measured]:
    """Measures, prints the table and returns what it shows."""
    rows: list[Measured] = []
    differences: list[float] = []
    calls = {n: (rounds(n) + 2) * (len(ALGORITHMS) if fits(n) else 1) for n in lengths}
    with Progress(console=console, transient=True) as progress:
        # A call takes time in proportion to S^2.
        bar = progress.add_task("", total=sum(count * n * n for n, count in calls.items()))
        for tokens in lengths:
            progress.update(bar, description=f"Long sequences: S = {tokens}")
            measured, difference = measure(tokens, partial(progress.advance, bar, tokens * tokens))
            rows += measured
            differences += [] if difference is None else [difference]
    console.print(table(rows))
    console.print("memory: the peak above the inputs, measured, the output included")
    if differences:
        console.print(f"largest difference of the two results: {max(differences):.1e}")
    if any(row.seconds is None for row in rows):
        console.print("left out: the materialised scores would not fit in the available memory")
    if any(row.seconds is not None and row.memory is None for row in rows):
        console.print("memory is measured on Linux only (through /proc/self/clear_refs)")
    return rows


def table(rows: Sequence[Measured]) -> Table:
    shown = Table(
        *("S", "output", "safe: time", "safe: memory", "flash: time", "flash: memory"),
        title=f"Safe (materialised) and flash attention: (1, {HEADS}, S, {DIM}), float32, "
        f"{fanano.get_num_threads()} thread(s)",
        title_justify="left",
    )
    for safe, flash in zip(rows[::2], rows[1::2], strict=True):
        cells = (seconds(safe), mebibytes(safe.memory), seconds(flash), mebibytes(flash.memory))
        shown.add_row(str(safe.tokens), mebibytes(output_memory(safe.tokens)), *cells)
    return shown


def seconds(row: Measured) -> str:
    if row.seconds is None:
        return f"left out: needs {scores_memory(row.tokens) / 2**30:.1f} GiB"
    return f"{row.seconds * 1e3:.1f} ms"


def mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f} MiB"
