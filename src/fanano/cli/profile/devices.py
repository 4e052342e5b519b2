"""Whose times are measured: the clock around calls, and what of the profilers' events is held
against it."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import time
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler import profile as legacy_profile
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

Seconds = dict[str, dict[str, float]]  # of each range, and of each part of it, by their names


def nothing(names: Iterable[str]) -> Seconds:
    """Said of every range: a profiler may have no records of a device."""
    return {name: defaultdict(float, {name: 0.0}) for name in names}


class Device:
    """The processor: wall time, which both profilers call CPU time."""

    name = "cpu"
    says = "cpu_time_total"
    says_itself = "self_cpu_time_total"

    def legacy(self) -> Any:
        return legacy_profile()

    def torch(self) -> Any:
        return torch_profile(activities=[ProfilerActivity.CPU])

    def wait(self) -> None:
        """Until everything that was called has been done."""

    def timed(self, name: str, call: Callable[[], Any], repeats: int) -> tuple[float, float]:
        """Wall and CPU seconds of so many calls, each in a range of its own."""
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            with record_function(name):
                call()
        return time.perf_counter() - start, time.process_time() - start_cpu

    def by_range(self, way: str, events: Iterable[Any], names: Iterable[str]) -> Seconds:
        """Seconds of each range, and of what ran in it without what ran in that."""
        found = nothing(names)
        for event in events:
            if event.device_type != DeviceType.CPU:
                continue
            if event.name in found:
                found[event.name][event.name] += getattr(event, self.says) / 1e6
                continue
            parent = event.cpu_parent
            while parent is not None and parent.name not in found:
                parent = parent.cpu_parent
            if parent is not None:
                found[parent.name][event.name] += getattr(event, self.says_itself) / 1e6
        return found


class Cuda(Device):
    """A GPU: between events in its stream. The legacy profiler puts two of its own around each
    operator; the other one has the device's records of each kernel."""

    name = "cuda"
    says = "device_time_total"
    says_itself = "self_device_time_total"

    def legacy(self) -> Any:
        return legacy_profile(use_device="cuda")

    def torch(self) -> Any:
        return torch_profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def wait(self) -> None:
        torch.cuda.synchronize()

    def timed(self, name: str, call: Callable[[], Any], repeats: int) -> tuple[float, float]:
        pairs = []
        self.wait()
        start_cpu = time.process_time()
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            with record_function(name):
                call()
            end.record()
            pairs.append((begin, end))
        cpu = time.process_time() - start_cpu
        self.wait()
        return sum(begin.elapsed_time(end) for begin, end in pairs) / 1e3, cpu

    def by_range(self, way: str, events: Iterable[Any], names: Iterable[str]) -> Seconds:
        """Of torch.profiler the kernels, by time: those that no operator has launched, as ours, it
        counts to no range. As each range's calls are waited for before the next range begins, a
        kernel is of the range that began last before it."""
        if way == "legacy":
            return super().by_range(way, events, names)
        found = nothing(names)
        every = list(events)
        begun = sorted(
            (event.time_range.start, event.name)
            for event in every
            if event.device_type == DeviceType.CPU and event.name in found
        )
        for event in every:
            if event.device_type == DeviceType.CPU or event.name in found:
                continue  # a range's name again, on the device: from its first kernel to its last
            place = bisect(begun, event.time_range.start, key=lambda one: one[0])
            if place:
                name = begun[place - 1][1]
                seconds = event.time_range.elapsed_us() / 1e6
                found[name][name] += seconds
                found[name][event.name] += seconds
        return found


BY_NAME = {"cpu": Device, "cuda": Cuda}
