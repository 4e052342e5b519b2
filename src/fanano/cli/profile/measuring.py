"""The same calls by the clock alone and under each profiler, by turns."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import datetime
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd.profiler import profile as legacy_profile
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

import fanano

from ..bench.machine import cpu_model
from .workloads import Calls

PROFILERS: dict[str, Callable[[], Any]] = {
    "legacy": legacy_profile,
    "torch": lambda: torch_profile(activities=[ProfilerActivity.CPU]),
}
SAMPLE_SECONDS = 0.02  # a sample has as many calls as take this long
SMALL = 0.03  # operators of a smaller part of their range are left out

Row = dict[str, Any]
Times = dict[str, list[float]]


def machine() -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "isa": next(kernel.isa for kernel in fanano.kernels() if kernel.chosen),
        "versions": {"fanano": fanano.__version__, "torch": torch.__version__},
    }


def measure(calls: Calls, rounds: int) -> tuple[list[Row], Any]:
    """A row for each range and for each large operator in it: seconds a call, medians of rounds.

    "clock" and "cpu" without a profiler, of wall and of all threads; of each profiler "clock", the
    wall clock under it, "says", what it reports, and "off", its difference from that clock. An
    operator has what they say of it, without the operators inside of it, and "off" from the whole
    range. Returned beside them: the last profile by torch.profiler.
    """
    repeats = {name: often(call) for name, call in calls.items()}
    clocks: dict[str, dict[str, Times]] = {name: defaultdict(times) for name in calls}
    said: dict[str, dict[str, Times]] = {name: defaultdict(times) for name in calls}
    ways: list[tuple[str, Callable[[], Any]]] = [("none", nullcontext), *PROFILERS.items()]
    last: Any = None
    for _ in range(rounds):
        for way, make in ways:
            with make() as profiler:
                for name, call in calls.items():
                    wall, cpu = timed(name, call, repeats[name])
                    clocks[name][way]["wall"].append(wall / repeats[name])
                    clocks[name][way]["cpu"].append(cpu / repeats[name])
            if profiler is None:
                continue
            last = profiler if way == "torch" else last
            events = profiler.function_events if way == "legacy" else profiler.events()
            for name, found in by_range(events, calls).items():
                for event, seconds in found.items():
                    said[name][event][way].append(seconds / repeats[name])
        ways = ways[1:] + ways[:1]
    rows = []
    for name in calls:
        rows.append(range_row(name, repeats[name], clocks[name], said[name].pop(name)))
        rows.extend(operator_rows(name, said[name], rows[-1]))
    return rows, last


def times() -> Times:
    return defaultdict(list)


def often(call: Callable[[], Any]) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, round(SAMPLE_SECONDS / (time.perf_counter() - start)))


def timed(name: str, call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds of so many calls, each in a range of its own."""
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        with record_function(name):
            call()
    return time.perf_counter() - start, time.process_time() - start_cpu


def by_range(events: Iterable[Any], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Seconds of each range, and of what ran in it without what ran in that."""
    found: dict[str, dict[str, float]] = {name: defaultdict(float) for name in names}
    for event in events:
        if event.name in found:
            found[event.name][event.name] += event.cpu_time_total / 1e6
            continue
        parent = event.cpu_parent
        while parent is not None and parent.name not in found:
            parent = parent.cpu_parent
        if parent is not None:
            found[parent.name][event.name] += event.self_cpu_time_total / 1e6
    return found


def range_row(name: str, calls: int, clocks: dict[str, Times], said: Times) -> Row:
    row: Row = {"range": name, "calls": calls}
    row["clock"] = statistics.median(clocks["none"]["wall"])
    row["cpu"] = statistics.median(clocks["none"]["cpu"])
    for way in PROFILERS:
        clock, says = statistics.median(clocks[way]["wall"]), statistics.median(said[way])
        # Of the same calls, and only then the median: rounds differ more than profilers do.
        off = (b / a - 1 for a, b in zip(clocks[way]["wall"], said[way], strict=True))
        row[way] = {"clock": clock, "says": says, "off": statistics.median(off)}
    return row


def operator_rows(name: str, said: dict[str, Times], of_range: Row) -> list[Row]:
    rows = []
    for operator, seconds in said.items():
        says = {way: statistics.median(seconds[way] or [0.0]) for way in PROFILERS}
        if any(says[way] > SMALL * of_range[way]["says"] for way in PROFILERS):
            row: Row = {"range": name, "operator": operator}
            rows.append(row | {way: of_operator(says[way], of_range[way]) for way in PROFILERS})
    return sorted(rows, key=lambda row: -float(row["torch"]["says"]))


def of_operator(says: float, of_range: Row) -> Row:
    return {"says": says, "off": says / of_range["clock"] - 1}
