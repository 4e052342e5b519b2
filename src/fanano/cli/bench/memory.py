"""Peak extra memory of one call of each contender, each in a process of its own.

Read there as ``fanano demo`` reads it: the high-water mark of the resident set after the call,
less that before it. What a library makes once for a shape (a compiled program, a session) and what
its first small call brings (threads, code) stand before the call and do not count. The C library is
told to give large blocks back at once: memory kept from making the inputs would hide what a call
takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..memory import available_memory, extra_peak, measurable
from . import peers
from .arrays import inputs
from .cases import Case
from .side_by_side import Outcome, Row, Tick, description, first_line

MOST_SECONDS = 600.0  # of one contender: some compile for minutes, none hang unnoticed


def fitting(case: Case) -> Case:
    """The case, halved until a library that holds its scores three times fits in this machine."""
    available = available_memory()
    while available is not None and case.rows > 1:
        scores = 4 * case.batch * case.heads * case.rows * case.keys
        if 3 * scores < 0.8 * available:
            break
        case = replace(case, rows=case.rows // 2, keys=case.keys // 2)
    return case


def measure(case: Case, contenders: Sequence[peers.Peer], threads: int, tick: Tick) -> Row:
    case = fitting(case)
    outcomes: dict[str, Outcome] = {}
    for peer in contenders:
        outcomes[peer.name] = in_own_process(case, peer.name, threads)
        tick(1 / len(contenders))
    return description("memory", case) | {"output_bytes": case.output_bytes, "contenders": outcomes}


def in_own_process(case: Case, name: str, threads: int) -> Outcome:
    if not measurable():
        return {"refused": "memory is measured on Linux only (through /proc/self/clear_refs)"}
    asked = json.dumps({"case": asdict(case), "name": name, "threads": threads})
    command = [sys.executable, "-m", __spec__.name, asked]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"had not ended after {MOST_SECONDS:g} seconds"}
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        return {"refused": f"ended with {done.returncode}: {said[-1]}"}
    answer: Outcome = json.loads(done.stdout.splitlines()[-1])
    return answer


def alone(case: dict[str, Any], name: str, threads: int) -> Outcome:
    (peer,) = (peer() for peer in peers.ALL if peer.name == name)
    peer.start(threads)
    whole = Case(**case)
    small = replace(whole, rows=min(64, whole.rows), keys=min(64, whole.keys))
    try:
        with peer.around():
            for call in peer.prepare(small, inputs(small)).calls:
                call()
            (call,) = peer.prepare(whole, inputs(whole)).calls
            return {"bytes": extra_peak(call)}
    except peers.CannotRun as reason:
        return {"refused": str(reason)}
    except Exception as error:
        return {"refused": first_line(error)}


if __name__ == "__main__":
    print(json.dumps(alone(**json.loads(sys.argv[1]))))
