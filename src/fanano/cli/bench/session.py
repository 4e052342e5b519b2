"""A whole run: every case of the groups asked for, and what must be known of the machine."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.progress import Progress

import fanano

from . import cases, memory, options, side_by_side
from .devices import Device
from .peers import Peer

Result = dict[str, Any]


def run(
    console: Console,
    device: Device,
    peers: Sequence[Peer],
    groups: Sequence[str],
    *,
    dtypes: Sequence[str],
    quick: bool,
    threads: int | None,
    rounds: int,
    seconds: float | None,
    save: Callable[[Result], None],
) -> Result:
    """Measures and returns what --json writes, having saved it after each row; after `seconds` no
    row is begun. fanano's number of threads is what it was after."""
    before = fanano.get_num_threads()
    number = before if threads is None else threads
    fanano.set_num_threads(number)  # the options have no contender that would
    try:
        device.start()
        settings: dict[str, str] = {}
        for peer in peers:
            if peer.library not in settings:
                settings[peer.library] = peer.start(number)
        chosen = cases.chosen(groups, dtypes, quick, device.name)
        rows: list[side_by_side.Row] = []
        result: Result = {
            "date": datetime.date.today().isoformat(),
            "device": device.name,
            **device.facts(number),
            "versions": versions(peers),
            "settings": settings,
            "rounds": rounds,
            "quick": quick,
            "left_out": len(chosen),
            "rows": rows,
        }
        save(result)
        for row in measured(console, device, peers, chosen, number, rounds, seconds):
            rows.append(row)
            result["left_out"] -= 1
            save(result)
    finally:
        fanano.set_num_threads(before)
    return result


def measured(
    console: Console,
    device: Device,
    peers: Sequence[Peer],
    chosen: Sequence[tuple[str, cases.Case]],
    threads: int,
    rounds: int,
    seconds: float | None,
) -> Iterator[side_by_side.Row]:
    start = time.monotonic()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(chosen))
        for done, (group, case) in enumerate(chosen):
            if seconds is not None and time.monotonic() - start > seconds:
                return
            mask = ", causal" if case.causal else ""
            progress.update(bar, description=f"{group} {case} {case.dtype}{mask}")
            tick = partial(progress.advance, bar)
            mine = [peer for peer in peers if group in peer.groups]
            if group == "options":
                row = options.measure(case, rounds, tick)
            elif group == "memory":
                row = memory.measure(case, mine, threads, tick)
            else:
                row = side_by_side.measure(group, case, mine, rounds, device, tick)
            progress.update(bar, completed=done + 1)
            yield row | {"device": device.name, "threads": threads}


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
