"""Timing by turns: every contender once a round, each round in another order."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from .devices import CPU, Device, Sample
from .devices.cpu import peak

SAMPLE_SECONDS = 0.005  # a sample has as many calls as take this long: clocks and timers are coarse


@dataclass
class Contender:
    """Calls that do the same on other memory, in turn; what surrounds them and is not timed."""

    calls: Sequence[Callable[[], Any]]
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    device: Device = CPU
    yardstick: Callable[[], float] = peak
    samples: list[Sample] = field(default_factory=list)
    best: list[float] = field(default_factory=list)  # by the yardstick, a second
    restless: int = 0  # rounds after which its threads would not sleep

    def __post_init__(self) -> None:
        self.next = cycle(self.calls)
        self.repeats = 1

    def sample(self) -> Sample:
        return self.device.sample([next(self.next) for _ in range(self.repeats)])

    def turn(self) -> None:
        """One sample between two measurements of what the machine can do: clocks fall under load
        and rise again within milliseconds, and neighbours take their part of the memory."""
        before = self.yardstick()
        with self.around():
            self.samples.append(self.sample())
        self.restless += not self.device.settled()
        self.best.append((before + self.yardstick()) / 2)

    def summary(self) -> dict[str, float]:
        seconds = [sample.seconds for sample in self.samples]
        clocks = [sample.mhz for sample in self.samples if sample.mhz is not None]
        found = {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "cpu_seconds": statistics.median(sample.cpu_seconds for sample in self.samples),
            "best": statistics.median(self.best) / 1e9,
            "calls": self.repeats,
            "restless": self.restless,
        }
        return found | ({"mhz": statistics.median(clocks)} if clocks else {})


def timed(
    contenders: Mapping[str, Contender], rounds: int, tick: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """The summary of each; tick is called after every turn."""
    for contender in contenders.values():
        with contender.around():
            contender.sample()  # first calls touch new memory
            seconds = min(contender.sample().seconds for _ in range(2))
        contender.repeats = max(1, math.ceil(SAMPLE_SECONDS / seconds))
        contender.device.settled()
    order = list(contenders.values())
    for _ in range(rounds):
        for contender in order:
            contender.turn()
            tick()
        order = order[1:] + order[:1]
    return {name: contender.summary() for name, contender in contenders.items()}
