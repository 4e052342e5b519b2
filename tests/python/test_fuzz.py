"""A few seconds of the fuzz target, on the same inputs each time, and what it has found before;
tests/fuzz/README.md has the rest."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_errors import good, refuses

import fanano

FUZZ = Path(__file__).parents[1] / "fuzz"
KINDS = ("attention", "softmax", "absorb", "merge_states", "explain", "shapes")


@pytest.mark.skipif(
    "FANANO_SANITIZE" in os.environ, reason="ctest's own entry runs it under the sanitizers"
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_fuzz_target_finds_nothing(seed, tmp_path):
    """In a process of its own, which may crash."""
    command = [sys.executable, FUZZ / "run.py", "--engine", "random", "--runs", "8000"]
    command += ["--seed", str(seed), "--findings", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for kind in KINDS:  # else it would look at nothing
        assert f"{kind}: done" in ran.stdout
        assert f"{kind}: ValueError" in ran.stdout


class Fickle:
    """A number that empties the list it stands in when it is read."""

    def __init__(self, owner):
        self.owner = owner

    def __index__(self):
        self.owner.clear()
        return 1

    def __float__(self):
        return float(self.__index__())


def fickle(size):
    numbers = [1] * size
    numbers[0] = Fickle(numbers)
    return numbers


BY_HEAD = {"alibi_slopes": "by_head_and_batch", "sinks": "by_head"}  # rules of the table


def test_lists_that_change_while_they_are_read():
    """What was there is what counts; once the old count was, and memory past the end was read."""
    query = good()
    assert fanano.attention(**query, window_size=fickle(2)) is query["out"]
    for option in "alibi_slopes", "sinks":
        given = {option: fickle(4)}
        message = rf"{option} must have shape \(Hq,\).*; it has shape \(1,\)"
        rule = BY_HEAD[option]
        refuses(lambda given=given: fanano.attention(**good(), **given), rule, message)
    given = [fickle(4), [1] * 4]
    message = "alibi_slopes has rows of 1 and of 4 numbers"
    refuses(lambda: fanano.attention(**good(), alibi_slopes=given), "ragged", message)


@pytest.mark.parametrize("option", ["alibi_slopes", "sinks"])
def test_endless_numbers_are_counted_before_they_are_copied(option):
    endless = {option: np.broadcast_to(np.float32(1), (2**45,))}
    message = rf"{option} must have shape .* it has shape \(35184372088832,\)"
    refuses(lambda: fanano.attention(**good(), **endless), BY_HEAD[option], message)


@pytest.mark.parametrize("hidden", [np.False_, np.float32(-np.inf)], ids=["bool", "float"])
@pytest.mark.parametrize("sinks", [None, -np.inf])
def test_a_mask_that_shows_nothing_in_the_naive_algorithm(sinks, hidden):
    """As in the others: 0 / 0 is for what is seen and vanishes."""
    query, key, value = list(good().values())[:3]
    options = {"algorithm": "naive", "return_lse": True, "sinks": sinks}
    mask = np.full((6, 1), True if hidden.dtype == bool else 0, hidden.dtype)
    mask[2] = hidden
    out, lse = fanano.attention(query, key, value, attn_mask=mask, **options)
    row = np.arange(6) == 2
    assert (out == np.where(row, 0, 1)[:, None]).all()
    assert ((lse == -np.inf) == row).all()
    out, lse = fanano.attention(query, key, value, attn_mask=np.float32([-1e4]), **options)
    assert np.isnan(out).all()
    assert (lse == -np.inf).all()


@pytest.mark.parametrize("algorithm", ["flash", "safe", "online"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_beyond_the_accumulator(dtype, algorithm):
    """They are finite, so nothing becomes NaN: a weight is 0 or 1 long before."""
    query, key, value = (x.astype(dtype) for x in list(good().values())[:3])
    value += np.arange(5, dtype=dtype)[:, None]
    options = {"algorithm": algorithm, "return_lse": True}
    out, lse = fanano.attention(query, key, value, sinks=1.7e308, **options)
    assert (out == 0).all()
    assert (lse > 1e30).all()
    out, lse = fanano.attention(query, key, value, sinks=-1.7e308, **options)
    assert (out == fanano.attention(query, key, value, algorithm=algorithm)).all()
    for offset in 0, 2**60:
        for slope in 1.7e308, -1.7e308:  # the nearest key has it all, or the farthest
            options["q_offset"] = offset
            out, lse = fanano.attention(query, key, value, alibi_slopes=slope, **options)
            rows = np.arange(6)[:, None] + offset
            distance = np.abs(rows - np.arange(5)) * (1 if slope > 0 else -1)
            nearest = distance == distance.min(1, keepdims=True)
            expected = nearest @ value[0, 0] / nearest.sum(1, keepdims=True)
            assert np.isfinite(lse).all()
            if offset == 0:
                np.testing.assert_allclose(out[0, 0], expected, rtol=1e-6)
            else:
                assert np.isfinite(out).all()
