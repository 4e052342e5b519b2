"""Attention on a CUDA device beside numbers that nobody has looked at (the emulator is the device):
lengths and offsets are clamped, and slopes and sinks may be anything."""

import compare
import emulated
import numpy as np
import pytest
from cases import Case
from cuda_cases import PADDED, PLAIN
from emulated_wild import LEAST, MOST, WILD, launched, nearest

pytestmark = emulated.needs_emulator

MASK = {"mask": "bool (B, 1, Sq, Sk)"}
# What is asked, and the kernel that does it. Sequences of at most 16 queries are decode's, and its
# keys are split where there are more than 512.
FAMILIES = {
    "prefill": ({"rows": 19}, "flash_sm80_kernel"),
    "prefill, general": ({"rows": 19} | MASK, "flash_sm80_kernel"),
    "decode": ({}, "decode_sm80_kernel"),
    "decode, general": ({"rows": 7} | MASK, "decode_sm80_kernel"),
    "decode, split": ({"rows": 3, "keys": 1100}, "decode_sm80_kernel"),
    "plain": ({"dtype": "float32"}, "flash_plain_kernel"),
    "materialised": ({"rows": 4, "keys": 21, "algorithm": "safe"}, "product_kernel"),
}


def case_of(family, **more):
    small = {"dtype": "float16", "dims": (20, 12)}
    return Case(**small | PLAIN | PADDED | FAMILIES[family][0] | more)


def run(family, case, options):
    """out and lse, by the kernel of the family and no other."""
    emulated.calls()
    found = emulated.attention(
        *case.arrays(), algorithm=case.algorithm, return_lse=True, **case.options | options
    )
    kernels = launched()
    assert FAMILIES[family][1] in kernels
    assert "decode" not in family or "flash" not in kernels
    return found, kernels


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("numbers", WILD)
def test_lengths_and_offsets_are_clamped(family, numbers):
    """No access leaves the arrays, and they count as the nearest that there are."""
    case, wild = case_of(family), WILD[numbers]
    (out, lse), kernels = run(family, case, wild)
    assert np.count_nonzero(out) > out.size / 3  # else it would say little
    # Of flash_sm80_kernel<T, Dim, General>.
    assert ("Lb1E" in kernels) == (family == "prefill, general")
    options = case.options | nearest(case, wild)
    compare.judge_attention(out, lse, *case.arrays(), what=str(case), **options)


GOOD = np.array([0.5, 0.25, 0.125, 0.75, 1.5, 2.0])
BAD = np.array([0.5, np.nan, np.inf, -np.inf, 1.5, 2.0])  # the first shares its keys with NaN's


@pytest.mark.parametrize("family", ["prefill", "decode", "decode, split", "plain", "materialised"])
@pytest.mark.parametrize("option", ["alibi_slopes", "sinks"])
@pytest.mark.parametrize("offsets", [[15, 3], [MOST, LEAST]], ids=["near", "far"])
def test_what_is_not_finite_stays_in_its_head(family, option, offsets):
    """Also where heads that share keys are rows of one tile, as decode has them."""
    case = case_of(family, heads=(2, 6, 3, 4), **({} if "split" in family else {"keys": 21}))
    offsets, same = {"q_offset": np.array(offsets)}, BAD == GOOD
    (out, lse), _ = run(family, case, offsets | {option: BAD})
    expected, _ = run(family, case, offsets | {option: GOOD})
    for x, y in zip((out, lse), expected, strict=True):
        assert x[:, same].tobytes() == y[:, same].tobytes()
    assert (lse[0, ~same] != expected[1][0, ~same]).all()  # they were read
    if option == "alibi_slopes":  # the steepest are as steep as still is a number
        assert np.isfinite(out[:, 2:]).all()
