"""One input of the fuzz target: bytes become a call of fanano, and what comes of it is judged.

A call may raise TypeError, ValueError or NotImplementedError, MemoryError if it asked for more than
there is, or what the caller's own objects raise. It must refuse what cannot be. Refused, it has
written nothing; carried out, nothing but the result, which is right. What was lent is given back
exactly once. Everything else, a crash and a long time included, is a finding.
"""

import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

import numpy as np
from calls import Mischief, read_call
from choices import Choices
from hostile import Undefendable, stands_on_itself, touched
from judge import judge

import fanano
from fanano import _core

SANITIZED = bool(os.environ.get("FANANO_SANITIZE"))
LONG = 5  # seconds of CPU: calls of this size take a thousandth of that

seen = Counter()  # what came of the inputs so far, by kind


class Finding(AssertionError):
    pass


def one_input(data):
    """Raises Finding if fanano does what it must not."""
    try:
        call = read_call(Choices(data), SANITIZED)
    except Undefendable:
        seen["no call"] += 1
        return
    result = error = None
    began = time.process_time()
    try:
        result = run(call)
    except BaseException as e:
        error = e
    took = time.process_time() - began
    try:
        with np.errstate(all="ignore"):
            examine(call, result, error)
        assert took < LONG, f"took {took:.1f} s"
    except AssertionError as finding:
        raise Finding(f"{finding}\n{described(call)}") from (error or finding)
    came = "done" if error is None else type(error).__name__
    seen[f"{call.kind}: {came}"] += 1


def run(call):
    arguments = call.arguments
    match call.kind:
        case "absorb":
            return fanano.SoftmaxState().absorb(**arguments)
        case "shapes":
            return _core.explain_shapes(**arguments)
        case name:
            return getattr(fanano, name)(**arguments)


def examine(call, result, error):
    drawn = call.drawn
    allowed = [TypeError, ValueError, NotImplementedError]
    if any(d.endless for d in drawn.values()) or call.kind == "shapes":
        allowed.append(MemoryError)
    if call.mischief:
        allowed.append(Mischief)
    if error is not None:
        assert isinstance(error, tuple(allowed)), f"raises {type(error).__name__}: {error}"
        assert str(error) or isinstance(error, (Mischief, MemoryError)), "raises without a word"
    else:
        for why in reasons(call):
            raise AssertionError(f"accepts {why}")
    for name, d in drawn.items():
        lender = d.lender
        if lender is not None:
            due = lender.made if lender.deletes else 0
            assert lender.returned == due, (
                f"{name} was lent {due}, returned {lender.returned} times"
            )
    out = written(call)
    for name, d in drawn.items():
        if d.arena is None:
            continue
        changed = d.arena.bytes != d.arena.before
        if error is None and out is not None and d.arena is out.arena:
            changed &= ~touched(out.arena, out.view)
        assert not changed.any(), f"writes {changed.sum()} bytes of {name}'s memory"
    if error is None:
        judge(call, result)


def written(call):
    """What the caller wants to be written."""
    return call.drawn.get("out") if call.kind == "attention" else None


def reasons(call):
    """Why the call must be refused."""
    drawn, out = call.drawn, written(call)
    for name, d in drawn.items():
        if d.refused:
            yield f"{name}: {d.refused}"
    if out is None or out.view is None or not out.view.size:
        return
    if not out.view.flags.writeable:
        yield "out: read-only"
    if stands_on_itself(out.view):
        yield "out: elements that share a place"
    for name, d in drawn.items():
        if d is out or d.arena is not out.arena or d.view is None:
            continue
        if (touched(out.arena, out.view) & touched(d.arena, d.view)).any():
            yield f"out: it shares bytes with {name}"


def described(call):
    """The call in words, for whoever has to find out."""
    lines = [call.kind]
    for name, given in call.arguments.items():
        d = call.drawn.get(name)
        if d is not None and d.lender is not None:
            text = f"lender of {d.lender.said}, device {d.lender.device}"
        elif isinstance(given, np.ndarray):  # which may be endless
            text = f"ndarray {given.dtype} {given.shape} strides {given.strides}"
        else:
            text = repr(given)[:200]
        lines.append(f"  {name} = {text}")
    return "\n".join(lines)
