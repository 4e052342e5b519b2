"""Gradients of attention on a CUDA device beside numbers that nobody has looked at, as
test_emulated_wild.py has it for attention itself."""

import compare
import emulated
import numpy as np
import pytest
from cases import Case
from cuda_cases import PADDED, PLAIN
from emulated_wild import LEAST, MOST, WILD, launched, nearest

pytestmark = emulated.needs_emulator

# What is asked, and which kernel does something that others do not.
FAMILIES = {
    "sm80": ({}, "backward_keys_kernel"),
    "sm80, general": ({"mask": "bool (B, 1, Sq, Sk)"}, "backward_keys_kernel"),
    "plain": ({"dtype": "float32"}, "dq_kernel"),
    "dbias": ({"mask": "float32 (Sq, Sk)"}, "bias_kernel"),
    "sinks": ({"sinks": True}, "sinks_kernel"),
}


def case_of(family, **more):
    small = {"dtype": "float16", "rows": 19, "dims": (20, 12)}
    return Case(**PLAIN | PADDED | small | FAMILIES[family][0] | more)


def run(family, case, options):
    """Forward and backward, by the kernel of the family."""
    arrays, (dout, dlse), options = case.arrays(), case.upstream(), case.options | options
    out, lse = emulated.attention(*arrays, return_lse=True, **options)
    emulated.calls()
    dbias = family == "dbias"
    given = dout, *arrays, out, lse
    found = emulated.attention_backward(*given, dlse=dlse, grad_mask=dbias, **options)
    kernels = launched()
    assert FAMILIES[family][1] in kernels
    # Of backward_keys_kernel<T, Dim, General>.
    assert family != "sm80, general" or "Lb1E" in kernels
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("numbers", WILD)
def test_lengths_and_offsets_are_clamped(family, numbers):
    """No access leaves the arrays, and they count as the nearest that there are."""
    case, wild = case_of(family), WILD[numbers]
    got = run(family, case, wild)
    assert [x is None for x in got[3:]] == [family != "dbias", "sinks" not in family]
    assert all(x.any() for x in got if x is not None)
    judgement, (dout, dlse) = compare.GradientJudgement(str(case)), case.upstream()
    options = case.options | nearest(case, wild)
    judgement.add(got, *case.arrays(), dout, dlse=dlse, **options)
    judgement.verdict()


GOOD = np.array([0.5, 0.25, 0.125, 0.75, 1.5, 2.0])
BAD = np.array([0.5, np.nan, np.inf, -np.inf, 1.5, 2.0])
UNTOUCHED = 2  # the key head that no bad one shares


@pytest.mark.parametrize("family", ["sm80", "plain"])
@pytest.mark.parametrize("option", ["alibi_slopes", "sinks"])
@pytest.mark.parametrize("offsets", [[15, 3], [MOST, LEAST]], ids=["near", "far"])
def test_what_is_not_finite_stays_in_its_head(family, option, offsets):
    """But for the gradients of keys and values, which are those of all heads that share them."""
    case = case_of(family, heads=(2, 6, 3, 4), rows=5, keys=21)
    offsets, same = {"q_offset": np.array(offsets)}, BAD == GOOD
    got = run(family, case, offsets | {option: BAD})
    expected = run(family, case, offsets | {option: GOOD})
    assert got.dq[:, same].tobytes() == expected.dq[:, same].tobytes()
    for x, y in (got.dk, expected.dk), (got.dv, expected.dv):
        assert x[:, UNTOUCHED].tobytes() == y[:, UNTOUCHED].tobytes()
    assert np.isnan(got.dq[0, 1]).all()  # they were read
    if option == "sinks":
        assert got.dsinks[same].tobytes() == expected.dsinks[same].tobytes()
