"""One case, every contender: compared with float64, then timed by turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fanano._core import measure_peak

from .arrays import Array, Inputs, inputs
from .cases import Case
from .exact import exact, judge
from .machine import kv_sets, last_level_cache, reading
from .peers import CannotRun, Peer, Prepared
from .timing import PEAK_SECONDS, Contender, timed

Outcome = dict[str, Any]  # of one contender: the numbers, or {"refused": why}, or {"wrong": how}
Row = dict[str, Any]
Tick = Callable[[float], None]  # told which part of the case was done since it was told last


def measure(
    group: str, case: Case, peers: Sequence[Peer], rounds: int, threads: int, tick: Tick
) -> Row:
    """The row of a case of the groups prefill, decode and call."""
    cache = last_level_cache()
    count = kv_sets(case.kv_bytes, cache, len(peers) + 1) if group == "decode" else 1
    sets = inputs(case, count)
    reference = exact(sets[0], is_causal=case.causal)
    outcomes: dict[str, Outcome] = {}
    contenders: dict[str, Contender] = {}
    for peer in peers:
        outcomes[peer.name], prepared = compared(peer, case, sets, reference)
        if prepared is not None:
            contenders[peer.name] = Contender(prepared.calls, peer.around)
    yardstick: Callable[[], float] = partial(measure_peak, PEAK_SECONDS, case.dtype)
    if group == "decode":
        # From the middle of the rotation: the caches hold what was used last.
        yardstick = reading(x for kv in (*sets[count // 2 :], *sets[: count // 2]) for x in kv[1:])
    for contender in contenders.values():
        contender.yardstick = yardstick
    row = description(group, case) | {"kv_sets": count, "cache_bytes": cache}
    turns = rounds * len(contenders)
    for name, times in timed(contenders, rounds, lambda: tick(1 / turns)).items():
        outcomes[name] |= times
    return row | {"contenders": outcomes}


def description(group: str, case: Case) -> Row:
    sizes = {"gflop": case.gflop, "kv_bytes": case.kv_bytes}
    return {"group": group, "shape": str(case)} | asdict(case) | sizes


def compared(
    peer: Peer, case: Case, sets: Sequence[Inputs], reference: Array
) -> tuple[Outcome, Prepared | None]:
    """What is known of a contender before it is timed; None: it will not be."""
    try:
        with peer.around():
            prepared = peer.prepare(case, sets)
            results = [prepared.to_numpy(call()) for call in prepared.calls]
    except CannotRun as reason:
        return {"refused": str(reason)}, None
    except Exception as error:  # a library's own refusal is whatever it likes to raise
        return {"refused": first_line(error)}, None
    outcome: Outcome = {"what": prepared.what} if prepared.what else {}
    outcome |= worst(results, reference, sets[0], case.dtype)
    return outcome, None if "wrong" in outcome else prepared


def worst(results: Sequence[Array], reference: Array, arrays: Inputs, dtype: str) -> Outcome:
    """The judgement of the worst of several results that should be the same."""
    for result in results:
        if result.shape != reference.shape:
            return {"wrong": f"has the shape {result.shape}; expected {reference.shape}"}
    verdicts = [judge(result, reference, arrays, dtype) for result in results]
    for verdict in verdicts:
        if not verdict["of_allowed"] <= 1:  # NaN is wrong
            often = f"{verdict['of_allowed']:.3g} times what rounding explains"
            return {"wrong": f"differs from float64 by {verdict['error']:.1e}, {often}"}
    return dict(max(verdicts, key=lambda verdict: verdict["of_allowed"]))


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
