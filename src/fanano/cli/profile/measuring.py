"""The same calls by the clock alone and under each profiler, by turns."""

from __future__ import annotations

import datetime
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

import fanano

from ..bench.machine import cpu_model, in_words
from .devices import Device
from .workloads import Calls

PROFILERS = "legacy", "torch"
SAMPLE_SECONDS = 0.02  # a sample has as many calls as take this long
SMALL = 0.03  # operators of a smaller part of their range are left out

Row = dict[str, Any]
Times = dict[str, list[float]]


def machine(device: Device) -> dict[str, Any]:
    cpu, threads = cpu_model(), torch.get_num_threads()
    isa = next(kernel.isa for kernel in fanano.kernels() if kernel.chosen)
    words = in_words(cpu, threads, isa)
    return {
        "date": datetime.date.today().isoformat(),
        "device": device.name,
        "machine": words if device.name == "cpu" else torch.cuda.get_device_name(),
        "cpu": cpu,
        "threads": threads,
        "isa": isa,
        "versions": {"fanano": fanano.__version__, "torch": torch.__version__},
    }


def runnable(calls: Calls) -> tuple[Calls, dict[str, str]]:
    """The calls that there are on a device, and of the others what they say."""
    missing: dict[str, str] = {}
    for name, call in calls.items():
        try:
            call()
        except NotImplementedError as error:
            missing[name] = str(error)
    return {name: call for name, call in calls.items() if name not in missing}, missing


def measure(calls: Calls, rounds: int, device: Device | None = None) -> tuple[list[Row], Any]:
    """A row for each range and for each large operator in it: seconds a call, medians of rounds.

    "clock" and "cpu" without a profiler, by the device's clock and of all threads; of each
    profiler "clock", the same clock under it, "says", what it reports, and "off", its difference
    from that clock. An operator has what they say of it, without the operators inside of it, and
    "off" from the whole range. Returned beside them: the last profile by torch.profiler.
    """
    device = device or Device()
    repeats = {name: often(call, device) for name, call in calls.items()}
    clocks: dict[str, dict[str, Times]] = {name: defaultdict(times) for name in calls}
    said: dict[str, dict[str, Times]] = {name: defaultdict(times) for name in calls}
    ways: list[tuple[str, Callable[[], Any]]] = [
        ("none", nullcontext),
        ("legacy", device.legacy),
        ("torch", device.torch),
    ]
    last: Any = None
    for _ in range(rounds):
        for way, make in ways:
            with make() as profiler:
                for name, call in calls.items():
                    wall, cpu = device.timed(name, call, repeats[name])
                    clocks[name][way]["wall"].append(wall / repeats[name])
                    clocks[name][way]["cpu"].append(cpu / repeats[name])
            if profiler is None:
                continue
            last = profiler if way == "torch" else last
            events = profiler.function_events if way == "legacy" else profiler.events()
            for name, found in device.by_range(way, events, calls).items():
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


def often(call: Callable[[], Any], device: Device) -> int:
    call()
    device.wait()
    start = time.perf_counter()
    call()
    device.wait()
    return max(1, round(SAMPLE_SECONDS / (time.perf_counter() - start)))


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
