"""What each option of fanano.attention costs: the same call with it and without it, by turns."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import fanano

from .arrays import inputs
from .cases import NONE, Case
from .exact import exact
from .side_by_side import Outcome, Row, Tick, description, worst
from .timing import Contender, timed


def options(case: Case) -> dict[str, dict[str, Any]]:
    """The options by what tables call them; every mask but the all-true one hides a tenth."""
    rng = np.random.default_rng(1)
    rows, keys, heads = case.rows, case.keys, case.heads
    additive = rng.standard_normal((1, 1, rows, keys), dtype=np.float32)
    slopes = 2.0 ** (-8 * np.arange(1, heads + 1) / heads)  # those of the paper, for 8 heads
    return {
        NONE: {},
        "bool mask (1, 1, S, S)": {"attn_mask": rng.random((1, 1, rows, keys)) >= 0.1},
        "bool mask (1, 1, 1, S)": {"attn_mask": rng.random((1, 1, 1, keys)) >= 0.1},
        "bool mask, all true": {"attn_mask": np.ones((1, 1, rows, keys), dtype=bool)},
        "float32 mask (1, 1, S, S)": {"attn_mask": additive},
        "ALiBi": {"alibi_slopes": slopes.astype(np.float32)},
        "sinks": {"sinks": rng.standard_normal(heads, dtype=np.float32)},
        "softcap 20": {"softcap": 20.0},
        "causal": {"is_causal": True},
        "window (128, 0)": {"window_size": (128, 0)},
    }


def measure(case: Case, rounds: int, tick: Tick) -> Row:
    (arrays,) = inputs(case)
    outcomes: dict[str, Outcome] = {}
    contenders: dict[str, Contender] = {}
    for name, option in options(case).items():
        call = partial(fanano.attention, *arrays, **option)
        outcomes[name] = worst([call()], exact(arrays, **option), arrays, case.dtype)
        if "wrong" not in outcomes[name]:
            contenders[name] = Contender([call])
    turns = rounds * len(contenders)
    for name, times in timed(contenders, rounds, lambda: tick(1 / turns)).items():
        outcomes[name] |= times
    return description("options", case) | {"contenders": outcomes}
