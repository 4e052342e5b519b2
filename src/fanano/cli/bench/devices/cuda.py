"""A CUDA device, by torch: timed by events in its stream.

What is enqueued runs later than its call returns. Before each call that is timed, memory larger
than the L2 cache is written: keys and values come from device memory then, and the device is still
busy while the host prepares the launch, whose time so is not in that between the events.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from ...errors import CommandError
from ..arrays import Inputs, Library
from ..cases import Case
from ..machine import cpu_model
from .device import Device, Facts, Sample
from .nvml import Clocks

EVICT_BYTES = 2**30  # many times any L2, and a quarter of a millisecond of an H200
SIDE = 8192  # of the square matrices whose product is what a rate is held against


class Cuda(Device):
    name = "cuda"
    place = "cuda"  # of the arrays, in torch's words

    def start(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise CommandError("--device cuda: torch finds no CUDA device that it can use")
        self.torch = torch
        self.library = torch_on(self.place)
        self.properties: Any = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.clocks = Clocks(f"GPU-{self.properties.uuid}")
        self.room = torch.zeros(EVICT_BYTES // 4, device=self.place)
        self.matrices: dict[str, Any] = {}

    def facts(self, threads: int) -> Facts:
        its, driver = self.properties, self.clocks.driver
        capability = f"{its.major}.{its.minor}"
        machine = (
            f"{its.name} (compute capability {capability}, {its.multi_processor_count} "
            f"multiprocessors), driver {driver}, CUDA {self.torch.version.cuda}; {self.clocks}"
        )
        return {
            "machine": machine,
            "cpu": cpu_model(),
            "threads": threads,
            "gpu": its.name,
            "capability": capability,
            "multiprocessors": its.multi_processor_count,
            "memory_bytes": its.total_memory,
            "driver": driver,
            "cuda": self.torch.version.cuda,
            "cudnn": self.torch.backends.cudnn.version(),
            "clocks": self.clocks.now(),
        }

    def sets(self, case: Case, holders: int) -> tuple[int, int]:
        return 1, self.properties.L2_cache_size  # it is overwritten before each call

    def sample(self, calls: Sequence[Callable[[], Any]]) -> Sample:
        events, cpu = [], 0.0
        for call in calls:
            self.room.zero_()
            start = time.process_time()
            events.append(self.between(call))
            cpu += time.process_time() - start
        mhz = self.clocks.mhz()  # while the device is at work
        self.torch.cuda.synchronize()
        seconds = statistics.median(begin.elapsed_time(end) / 1e3 for begin, end in events)
        return Sample(seconds, cpu / len(calls), mhz)

    def between(self, call: Callable[[], Any]) -> tuple[Any, Any]:
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        return begin, end

    def yardstick(self, group: str, case: Case, sets: Sequence[Inputs]) -> Callable[[], float]:
        work: Callable[[], Any]
        if group == "decode":
            work, amount = self.room.sum, float(EVICT_BYTES)
        else:
            work, amount = self.product(case.dtype), 2.0 * SIDE**3

        def rate() -> float:
            begin, end = self.between(work)
            self.torch.cuda.synchronize()
            return amount / (float(begin.elapsed_time(end)) / 1e3)

        rate()  # the first call loads and allocates
        return rate

    def product(self, dtype: str) -> Callable[[], Any]:
        """torch's matrix product, of random numbers: of zeros it is faster than of any others."""
        if dtype not in self.matrices:
            draw = self.library.normal(2, dtype)
            self.matrices[dtype] = draw((SIDE, SIDE)), draw((SIDE, SIDE))
        a, b = self.matrices[dtype]
        return lambda: a @ b


def torch_on(device: str) -> Library:
    import torch

    there = {
        name: partial(getattr(torch, name), device=device)
        for name in ("arange", "empty", "ones", "zeros")
    }

    def normal(seed: int, dtype: str) -> Callable[[Sequence[int]], Any]:
        generator, kind = torch.Generator(device).manual_seed(seed), getattr(torch, dtype)
        return lambda shape: torch.randn(*shape, generator=generator, device=device).to(kind)

    return Library(SimpleNamespace(**vars(torch) | there), normal, lambda x: x.double())
