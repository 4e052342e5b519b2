"""Timing by turns: every contender once a round, each round in another order."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from fanano._core import measure_peak

PEAK_SECONDS = 0.003  # of the loop that a rate is held against
SAMPLE_SECONDS = 0.005  # a sample has as many calls as take this long: clocks and timers are coarse


@dataclass
class Contender:
    """Calls that do the same on other memory, in turn; what surrounds them and is not timed."""

    calls: Sequence[Callable[[], Any]]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    yardstick: Callable[[], float] = lambda: measure_peak(PEAK_SECONDS)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)  # by the yardstick, a second
    restless: int = 0  # rounds after which its threads would not sleep

    def __post_init__(self) -> None:
        self.next = cycle(self.calls)
        self.repeats = 1

    def sample(self) -> tuple[float, float]:
        """Wall and CPU seconds of a call, of all threads of this process."""
        calls = [next(self.next) for _ in range(self.repeats)]
        start, start_cpu = time.perf_counter(), time.process_time()
        for call in calls:
            call()
        cpu, wall = time.process_time() - start_cpu, time.perf_counter() - start
        return wall / self.repeats, cpu / self.repeats

    def turn(self) -> None:
        """One sample between two measurements of what the machine can do: clocks fall under load
        and rise again within milliseconds, and neighbours take their part of the memory."""
        with self.around():
            before = self.yardstick()
            wall, cpu = self.sample()
        self.restless += not settled()
        self.wall.append(wall)
        self.cpu.append(cpu)
        self.best.append((before + self.yardstick()) / 2)

    def summary(self) -> dict[str, float]:
        return {
            "seconds": statistics.median(self.wall),
            "fastest": min(self.wall),
            "slowest": max(self.wall),
            "cpu_seconds": statistics.median(self.cpu),
            "best": statistics.median(self.best) / 1e9,
            "calls": self.repeats,
            "restless": self.restless,
        }


def settled(limit: float = 0.1) -> bool:
    """Waits until the threads of this process sleep: some pools spin for a while after a call."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        start = time.process_time()
        time.sleep(0.001)
        if time.process_time() - start < 0.0002:
            return True
    return False


def timed(
    contenders: Mapping[str, Contender], rounds: int, tick: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """The summary of each; tick is called after every turn."""
    for contender in contenders.values():
        with contender.around():
            contender.sample()  # first calls touch new memory
            seconds = min(contender.sample()[0] for _ in range(2))
        contender.repeats = max(1, math.ceil(SAMPLE_SECONDS / seconds))
    settled()
    order = list(contenders.values())
    for _ in range(rounds):
        for contender in order:
            contender.turn()
            tick()
        order = order[1:] + order[:1]
    return {name: contender.summary() for name, contender in contenders.items()}
