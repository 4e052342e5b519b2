"""What this machine is: its processor, its caches, how fast it reads memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..memory import available_memory

CACHE_UNKNOWN = 32 * 2**20  # what is assumed where the system does not say


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


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


def read_bandwidth(threads: int, cache: int) -> float:
    """Bytes a second of numpy.max over arrays too large for the cache, one array a thread.

    The median of five passes. It reads and compares, nothing else, but it is NumPy's loop and not
    one made for this: now and then a contender may read a little faster.
    """
    size = max(64 * 2**20, 4 * cache // threads)
    if (available := available_memory()) is not None:
        size = min(size, available // 4 // threads)
    arrays = [np.ones(size // 4, dtype=np.float32) for _ in range(threads)]
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(6):
            start = time.perf_counter()
            list(pool.map(np.max, arrays))
            seconds.append(time.perf_counter() - start)
    return threads * arrays[0].nbytes / statistics.median(seconds[1:])


def cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
