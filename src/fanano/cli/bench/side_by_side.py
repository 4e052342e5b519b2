"""One case, every contender: compared with float64, then timed by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .arrays import NUMPY, Array, Inputs, Library, inputs, upstream
from .cases import Case
from .devices import Device
from .exact import exact, judge
from .gradients import NAMES, exact_gradients, judge_gradients
from .peers import CannotRun, Peer, Prepared
from .timing import Contender, timed

# Of one contender: the numbers; or why there are none, as {"refused": ...}, {"wrong": ...}, or
# {"missing": ...} for what is not there yet.
Outcome = dict[str, Any]
Row = dict[str, Any]
Prepare = Callable[[Peer], Prepared]
Judge = Callable[[Sequence[Any]], Outcome]  # of what the calls gave, turned into arrays
Tick = Callable[[float], None]  # told which part of the case was done since it was told last


def measure(
    group: str, case: Case, peers: Sequence[Peer], rounds: int, device: Device, tick: Tick
) -> Row:
    """The row of a case of the groups prefill, decode, backward and call."""
    count, cache = device.sets(case, len(peers) + 1)
    library = device.library
    sets = inputs(case, count if group == "decode" else 1, library)
    if group == "backward":
        prepare, judged = backward(case, sets[0], library)
    else:
        prepare, judged = forward(case, sets, library)
    outcomes: dict[str, Outcome] = {}
    contenders: dict[str, Contender] = {}
    for peer in peers:
        outcomes[peer.name], prepared = compared(peer, prepare, judged)
        if prepared is not None and device.name not in peer.untimed:
            contenders[peer.name] = Contender(prepared.calls, peer.around, device)
    yardstick = device.yardstick(group, case, sets)
    for contender in contenders.values():
        contender.yardstick = yardstick
    row = description(group, case) | {"kv_sets": len(sets), "cache_bytes": cache}
    turns = rounds * len(contenders)
    for name, times in timed(contenders, rounds, lambda: tick(1 / turns)).items():
        outcomes[name] |= times
    return row | {"contenders": outcomes}


def description(group: str, case: Case) -> Row:
    gflop = case.backward_gflop if group == "backward" else case.gflop
    sizes = {"gflop": gflop, "kv_bytes": case.kv_bytes}
    return {"group": group, "shape": str(case)} | asdict(case) | sizes


def forward(case: Case, sets: Sequence[Inputs], library: Library) -> tuple[Prepare, Judge]:
    reference = exact(sets[0], library, is_causal=case.causal)

    def judged(results: Sequence[Array]) -> Outcome:
        return worst(results, reference, sets[0], case.dtype, library)

    return lambda peer: peer.prepare(case, sets), judged


def backward(case: Case, arrays: Inputs, library: Library) -> tuple[Prepare, Judge]:
    dout = upstream(case, library)
    reference = exact_gradients(arrays, dout, library, is_causal=case.causal)

    def judged(results: Sequence[Sequence[Array]]) -> Outcome:
        (gradients,) = results
        for name, found, expected in zip(NAMES, gradients, reference.gradients, strict=True):
            if wrong := wrong_shape(found, expected):
                return {"wrong": f"{name} {wrong}"}
        verdict = judge_gradients(gradients, reference, case.dtype, library)
        return wrong_numbers(verdict) or dict(verdict)

    return lambda peer: peer.backward(case, arrays, dout), judged


def compared(peer: Peer, prepare: Prepare, judged: Judge) -> tuple[Outcome, Prepared | None]:
    """What is known of a contender before it is timed; None: it will not be."""
    try:
        with peer.around():
            prepared = prepare(peer)
            results = [prepared.to_array(call()) for call in prepared.calls]
    except CannotRun as reason:
        return {"refused": str(reason)}, None
    except NotImplementedError as error:
        return {"missing": first_line(error)}, None
    except Exception as error:  # a library's own refusal is whatever it likes to raise
        return {"refused": first_line(error)}, None
    outcome: Outcome = {"what": prepared.what} if prepared.what else {}
    outcome |= judged(results)
    return outcome, None if "wrong" in outcome else prepared


def worst(
    results: Sequence[Array],
    reference: Array,
    arrays: Inputs,
    dtype: str,
    library: Library = NUMPY,
) -> Outcome:
    """The judgement of the worst of several results that should be the same."""
    for result in results:
        if wrong := wrong_shape(result, reference):
            return {"wrong": wrong}
    verdicts = [judge(result, reference, arrays, dtype, library) for result in results]
    for verdict in verdicts:
        if wrong_one := wrong_numbers(verdict):
            return wrong_one
    return dict(max(verdicts, key=lambda verdict: verdict["of_allowed"]))


def wrong_shape(result: Array, reference: Array) -> str | None:
    if result.shape == reference.shape:
        return None
    return f"has the shape {tuple(result.shape)}; expected {tuple(reference.shape)}"


def wrong_numbers(verdict: Mapping[str, float]) -> Outcome | None:
    if verdict["of_allowed"] <= 1:  # NaN is not
        return None
    often = f"{verdict['of_allowed']:.3g} times what rounding explains"
    return {"wrong": f"differs from float64 by {verdict['error']:.1e}, {often}"}


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
