"""What this machine is: its processor, its caches, how fast it reads memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path

from fanano import _core

from ..memory import available_memory
from .arrays import Array

CACHE_UNKNOWN = 32 * 2**20  # what is assumed where the system does not say


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def in_words(cpu: str, threads: int, isa: str) -> str:
    return f"{cpu}, {threads} thread{'s' * (threads != 1)}, ISA {isa}"


def last_level_cache(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Bytes of the last-level caches of all processors of the machine, each once."""
    found: dict[tuple[int, str], int] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level = int((index / "level").read_text())
            shared = (index / "shared_cpu_list").read_text().strip()
            found[level, shared] = (
                int((index / "size").read_text().strip().removesuffix("K")) * 1024
            )
        except (OSError, ValueError):  # not said, or in other words
            continue
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last) or CACHE_UNKNOWN


def kv_sets(kv_bytes: int, cache: int, holders: int) -> int:
    """How many sets of keys and values a decode rotates over: more than four times the cache.

    holders: how many contenders may hold a copy of their own. Together they take at most half of
    the memory that is available; where that is too little, some reads come from the cache.
    """
    wanted = 4 * cache // kv_bytes + 1
    available = available_memory()
    if available is None:
        return wanted
    return max(1, min(wanted, available // 2 // (kv_bytes * holders)))


def reading(arrays: Iterable[Array]) -> Callable[[], float]:
    """A yardstick: bytes a second that all threads together read, of two more arrays each time."""
    turns = cycle(arrays)

    def rate() -> float:
        pair = next(turns), next(turns)
        start = time.perf_counter()
        for array in pair:
            _core.read(array)
        return sum(array.nbytes for array in pair) / (time.perf_counter() - start)

    return rate


def cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
