"""The processor: timed by the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fanano
from fanano._core import measure_peak

from ..arrays import NUMPY, Inputs
from ..cases import Case
from ..machine import cpu_model, cpus, in_words, kv_sets, last_level_cache, reading
from .device import Device, Facts, Sample

# Of the loop that a rate is held against, and that wakes the machine: after a pause some hosts run
# two virtual cores on one of theirs, at half speed each, for about 10 ms.
PEAK_SECONDS = 0.02


class Cpu(Device):
    name = "cpu"
    library = NUMPY

    def facts(self, threads: int) -> Facts:
        isa = next(kernel.isa for kernel in fanano.kernels() if kernel.chosen)
        cpu = cpu_model()
        words = in_words(cpu, threads, isa)
        return {"machine": words, "cpu": cpu, "cpus": cpus(), "threads": threads, "isa": isa}

    def sets(self, case: Case, holders: int) -> tuple[int, int]:
        cache = last_level_cache()
        return kv_sets(case.kv_bytes, cache, holders), cache

    def sample(self, calls: Sequence[Callable[[], Any]]) -> Sample:
        start, start_cpu = time.perf_counter(), time.process_time()
        for call in calls:
            call()
        cpu, wall = time.process_time() - start_cpu, time.perf_counter() - start
        return Sample(wall / len(calls), cpu / len(calls))

    def settled(self, limit: float = 0.1) -> bool:
        """Until the threads of this process sleep: some pools spin for a while after a call."""
        end = time.perf_counter() + limit
        while time.perf_counter() < end:
            start = time.process_time()
            time.sleep(0.001)
            if time.process_time() - start < 0.0002:
                return True
        return False

    def yardstick(self, group: str, case: Case, sets: Sequence[Inputs]) -> Callable[[], float]:
        if group != "decode":
            return partial(peak, case.dtype)
        # From the middle of the rotation: the caches hold what was used last.
        middle = len(sets) // 2
        return reading(x for kv in (*sets[middle:], *sets[:middle]) for x in kv[1:])


def peak(dtype: str = "float32") -> float:
    return measure_peak(PEAK_SECONDS, dtype)


CPU = Cpu()
