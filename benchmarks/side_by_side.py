"""Times fanano beside torch's own attention on the same CPU tensors and writes the numbers as JSON.

    python benchmarks/side_by_side.py benchmarks/results/NAME.json [--threads N]

Every result is compared with float64 before anything is timed. The contenders take turns, each
round in another order, so that a busy moment hits all of them; reported are the median of nine
rounds, the fastest and the slowest, and the CPU time of all threads. Each call stands between two
measurements of the machine's peak: multiply-adds in registers, float32, by fanano's own kernel for
it. Clocks fall under load and rise again within milliseconds, so peaks are taken next to the call.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import fanano
from fanano._core import measure_peak

SHAPES = ((1, 8, 2048, 64), (1, 8, 2048, 128))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDS = 9
PEAK_SECONDS = 0.003

Call = Callable[[], torch.Tensor]


def contenders(inputs: list[torch.Tensor], causal: bool) -> dict[str, Call]:
    return {
        "flash": lambda: fanano.attention(*inputs, is_causal=causal),
        "torch": lambda: F.scaled_dot_product_attention(*inputs, is_causal=causal),
        "safe": lambda: fanano.attention(*inputs, is_causal=causal, algorithm="safe"),
    }


def exact(inputs: list[torch.Tensor], causal: bool) -> torch.Tensor:
    """Attention in float64, one head at a time."""
    heads = []
    for query, key, value in zip(*(x[0].double() for x in inputs), strict=True):
        scores = query @ key.T / query.shape[-1] ** 0.5
        if causal:
            scores.masked_fill_(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        heads.append(scores.softmax(-1) @ value)
    return torch.stack(heads)[None]


def errors(calls: dict[str, Call], inputs: list[torch.Tensor], causal: bool) -> dict[str, float]:
    """Largest difference of each contender to float64; raises where one is no rounding error."""
    reference = exact(inputs, causal)
    found = {name: float((call().double() - reference).abs().max()) for name, call in calls.items()}
    bound = 4 * torch.finfo(inputs[0].dtype).eps * float(inputs[2].abs().max())
    for name, error in found.items():
        if not error <= bound:
            raise RuntimeError(f"{name} is wrong by {error:.2e}, more than {bound:.2e}: not timed")
    return found


def timed(calls: dict[str, Call]) -> dict[str, dict[str, float]]:
    """What each contender took, in seconds, and the peak around it, in 1e9 operations a second."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    peaks: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(ROUNDS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            before = measure_peak(PEAK_SECONDS)
            start, start_cpu = time.perf_counter(), time.process_time()
            calls[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
            peaks[name].append((before + measure_peak(PEAK_SECONDS)) / 2)
    return {
        name: {
            "seconds": statistics.median(wall[name]),
            "fastest": min(wall[name]),
            "slowest": max(wall[name]),
            "cpu_seconds": statistics.median(cpu[name]),
            "peak_gflops": statistics.median(peaks[name]) / 1e9,
        }
        for name in names
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def measure(threads: int) -> dict[str, Any]:
    rows = []
    for dtype in DTYPES:
        for shape in SHAPES:
            torch.manual_seed(0)
            inputs = [torch.randn(shape).to(dtype) for _ in range(3)]
            for causal in (False, True):
                name = str(dtype).removeprefix("torch.")
                print(f"{name} {shape} causal={causal}", file=sys.stderr)
                calls = contenders(inputs, causal)
                error = errors(calls, inputs, causal)
                row = {"dtype": name, "shape": shape, "causal": causal, "error": error}
                rows.append(row | {"times": timed(calls)})
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_model(),
        "threads": threads,
        "isa": next(kernel.isa for kernel in fanano.kernels() if kernel.chosen),
        "versions": {"fanano": fanano.__version__, "torch": torch.__version__},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON to write")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fanano.set_num_threads(arguments.threads)
    result = measure(arguments.threads)
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    arguments.file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
