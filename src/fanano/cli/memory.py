"""Peak extra memory of one attention call, measured in a process of its own.

A fresh process, because in one that has worked before an allocator may hand out memory that it
kept, and the call would look cheaper than it is. In it, Linux resets the high-water mark of the
resident set on request (/proc/self/clear_refs) and reports it (VmHWM in /proc/self/status), so no
peak between two samples can be missed. The kernel adds up the pages that each thread touches late:
good to about half a MiB for each thread.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Shape = tuple[int, int, int, int]


def peak_extra_memory(shape: Shape, algorithm: str) -> int | None:
    """Bytes that fanano.attention adds at its peak, the output included; None: cannot be measured.

    shape: (batch, heads, tokens, dim) of query, key and value, float32.
    """
    if not measurable():
        return None
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, json.dumps([shape, algorithm])],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(done.stdout)


def measurable() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)


def extra_peak(call: Callable[[], object]) -> int:
    """Bytes that a call adds at its peak to this process, its result included."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    clear.write_text("5")
    before = _field(status.read_text(), "VmHWM")
    out = call()
    peak = _field(status.read_text(), "VmHWM")
    del out
    return peak - before


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None where it cannot be known."""
    try:
        pages = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    available = int(_field(pages, "MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        available = min(available, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or "max": no limit of its own
        pass
    return available


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc has no line {name}")
    return int(found[1]) * 1024


def _measure(shape: Shape, algorithm: str) -> int:
    import numpy as np

    import fanano

    query, key, value = np.random.default_rng(0).standard_normal((3, *shape), dtype=np.float32)
    # Starts the threads and loads the code; what stays of this belongs to no one call.
    fanano.attention(query[..., :64, :], key[..., :64, :], value[..., :64, :], algorithm=algorithm)
    return extra_peak(lambda: fanano.attention(query, key, value, algorithm=algorithm))


if __name__ == "__main__":
    print(_measure(*json.loads(sys.argv[1])))
