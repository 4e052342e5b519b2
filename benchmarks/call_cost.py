"""What a call costs beside its arithmetic: microseconds on a tiny input, for each array library.

    python benchmarks/call_cost.py [--page docs/arrays.md]

Prints a table, or writes it into the page between its two markers. The input is four query rows and
four keys of 8 numbers, so nearly all of the time goes into checking arguments, reading arrays and
making results. Each number is the median of 201 batches of calls, every call of a library in turn,
so that a busy moment hits all of them. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import fanano
from fanano.cli.bench.machine import cpu_model

BEGIN, END = "<!-- call cost -->", "<!-- /call cost -->"
COLUMNS = {
    "absorb": "one array in, no array out: `SoftmaxState.absorb`",
    "softmax": "one in, one out: `softmax`",
    "attention": "three in, one out: `attention`",
    "lse": "three in, two out: `return_lse=True`",
    "out": "three in, one given: `out=`",
    "own": "the library's own attention",
}
BATCHES, BATCH_SECONDS = 201, 0.0005

Calls = dict[str, Callable[[], Any]]


def inputs() -> list[Any]:
    return [np.random.default_rng(i).random((4, 8), dtype=np.float32) for i in range(3)]


def calls(query: Any, key: Any, value: Any, out: Any = None) -> Calls:
    row, state = query[0, ...], fanano.SoftmaxState()
    found: Calls = {
        "absorb": lambda: state.absorb(row),
        "softmax": lambda: fanano.softmax(query),
        "attention": lambda: fanano.attention(query, key, value),
        "lse": lambda: fanano.attention(query, key, value, return_lse=True),
    }
    if out is not None:
        found["out"] = lambda: fanano.attention(query, key, value, out=out)
    return found


def of_numpy(numpy: Any) -> Calls:
    return calls(*inputs(), out=numpy.empty((4, 8), numpy.float32))


def of_torch(torch: Any) -> Calls:
    arrays = [torch.from_numpy(x) for x in inputs()]
    batched = [x[None, None] for x in arrays]
    own = torch.nn.functional.scaled_dot_product_attention
    return calls(*arrays, out=torch.empty(4, 8)) | {"own": lambda: own(*batched)}


def of_jax(jax: Any) -> Calls:
    arrays = [jax.numpy.asarray(x) for x in inputs()]
    batched = [x[None, :, None] for x in arrays]
    own = jax.jit(jax.nn.dot_product_attention)
    return calls(*arrays) | {"own": lambda: own(*batched).block_until_ready()}


def of_strict(strict: Any) -> Calls:
    return calls(*map(strict.asarray, inputs()), out=strict.empty((4, 8), dtype=strict.float32))


LIBRARIES = {
    "numpy": of_numpy,
    "torch": of_torch,
    "jax": of_jax,
    "array_api_strict": of_strict,
}


def measured(calls: Calls) -> dict[str, float]:
    """Microseconds a call."""
    batch: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(20):
            call()
        start = time.perf_counter()
        for _ in range(20):
            call()
        batch[name] = max(1, int(20 * BATCH_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(BATCHES):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(batch[name]):
                call()
            times[name].append((time.perf_counter() - start) / batch[name])
    return {name: 1e6 * statistics.median(taken) for name, taken in times.items()}


def table() -> Iterator[str]:
    rows, versions = [], [f"fanano {fanano.__version__}"]
    for name, made in LIBRARIES.items():
        try:
            library = import_module(name)
        except ModuleNotFoundError:
            continue
        versions.append(f"{name.replace('_', '-')} {library.__version__}")
        times = measured(made(library))
        rows.append([name.replace("_", "-"), *(cell(times.get(column)) for column in COLUMNS)])
    cpus = len(os.sched_getaffinity(0))
    yield f"{datetime.date.today()}, {cpu_model()}, {cpus} CPUs; {', '.join(versions)}."
    yield "Microseconds, medians of 201 batches; query, key and value are (4, 8), float32."
    yield ""
    for cells in [["", *COLUMNS.values()], ["---"] * (len(COLUMNS) + 1), *rows]:
        yield f"| {' | '.join(cells)} |"


def cell(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, help="Markdown to write the table into")
    page = parser.parse_args().page
    lines = "\n".join(table())
    if page is None:
        print(lines)
        return
    text = page.read_text()
    changed, count = re.subn(
        f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{lines}\n{END}", text, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{page} must have the markers {BEGIN} and {END} once")
    page.write_text(changed)


if __name__ == "__main__":
    main()
