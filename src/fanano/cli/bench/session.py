"""A whole run: every case of the groups asked for, and what must be known of the machine."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.progress import Progress

import fanano

from . import cases, machine, memory, options, side_by_side
from .peers import Peer

Result = dict[str, Any]


def run(
    console: Console,
    peers: Sequence[Peer],
    groups: Sequence[str],
    *,
    dtypes: Sequence[str],
    quick: bool,
    threads: int | None,
    rounds: int,
) -> Result:
    """Measures and returns what --json writes; fanano's number of threads is what it was after."""
    before = fanano.get_num_threads()
    number = before if threads is None else threads
    fanano.set_num_threads(number)  # the options have no contender that would
    try:
        settings: dict[str, str] = {}
        for peer in peers:
            if peer.library not in settings:
                settings[peer.library] = peer.start(number)
        rows = measured(console, peers, cases.chosen(groups, dtypes, quick), number, rounds)
    finally:
        fanano.set_num_threads(before)
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": machine.cpu_model(),
        "cpus": machine.cpus(),
        "threads": number,
        "isa": next(kernel.isa for kernel in fanano.kernels() if kernel.chosen),
        "versions": versions(peers),
        "settings": settings,
        "rounds": rounds,
        "quick": quick,
        "rows": rows,
    }


def measured(
    console: Console,
    peers: Sequence[Peer],
    chosen: Sequence[tuple[str, cases.Case]],
    threads: int,
    rounds: int,
) -> list[side_by_side.Row]:
    rows = []
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(chosen))
        for done, (group, case) in enumerate(chosen):
            mask = ", causal" if case.causal else ""
            progress.update(bar, description=f"{group} {case} {case.dtype}{mask}")
            tick = partial(progress.advance, bar)
            mine = [peer for peer in peers if group in peer.groups]
            if group == "options":
                row = options.measure(case, rounds, tick)
            elif group == "memory":
                row = memory.measure(case, mine, threads, tick)
            else:
                row = side_by_side.measure(group, case, mine, rounds, threads, tick)
            rows.append(row | {"threads": threads})
            progress.update(bar, completed=done + 1)
    return rows


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """Of fanano, NumPy and the packages of the contenders, by their metadata."""
    packages = dict.fromkeys(["numpy", *(name for peer in peers for name in peer.packages)])
    found = {"fanano": fanano.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # imported from somewhere that has no metadata
            found[package] = "of unknown version"
    return found
