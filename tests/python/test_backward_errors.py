"""What attention_backward refuses: which rule, and what its message names."""

import numpy as np
import pytest
from lender import Shared
from refusals import ones, refuses

import fanano


def good():
    """A call without a mistake: two sequences, four query heads over two key heads."""
    return {
        "dout": ones(2, 4, 6, 3),
        "query": ones(2, 4, 6, 8),
        "key": ones(2, 2, 5, 8),
        "value": ones(2, 2, 5, 3),
        "out": ones(2, 4, 6, 3),
        "lse": ones(2, 4, 6),
        "dlse": ones(2, 4, 6),
    }


HALF, WIDE = np.float16, np.float64

# By which row it is refused, or with which exception of Python's side; words of the message; what
# is wrong in a good call.
BACKWARD = {
    "out's shape": (
        "result_shape",
        r"out must have shape \(2, 4, 6, 3\); it has shape \(2, 4, 6, 8\)",
        {"out": ones(2, 4, 6, 8)},
    ),
    "out's rank": ("result_shape", "out must have shape", {"out": ones(4, 6, 3)}),
    "out's dtype": (
        "result_dtype",
        "out must have dtype float32; it is float64",
        {"out": ones(2, 4, 6, 3, dtype=WIDE)},
    ),
    "dout's shape": (
        "result_shape",
        r"dout must have shape \(2, 4, 6, 3\); it has shape \(2, 4, 3, 6\)",
        {"dout": ones(2, 4, 3, 6)},
    ),
    "dout's dtype": (
        "same_dtype",
        "dout must have the dtype of out, float32; it is float16",
        {"dout": ones(2, 4, 6, 3, dtype=HALF)},
    ),
    "lse of bshd": (
        "result_shape",
        r"lse must have shape \(2, 4, 6\); it has shape \(2, 6, 4\)",
        {"lse": ones(2, 6, 4)},
    ),
    "lse's dtype": (
        "result_dtype",
        "lse must have dtype float32; it is float64",
        {"lse": ones(2, 4, 6, dtype=WIDE)},
    ),
    "dlse's shape": ("result_shape", r"dlse must have shape \(2, 4, 6\)", {"dlse": ones(2, 4)}),
    "dlse's dtype": (
        "result_dtype",
        "dlse must have dtype float32; it is float16",
        {"dlse": ones(2, 4, 6, dtype=HALF)},
    ),
    "no mask": ("grad_mask", "grad_mask asks .*; attn_mask is None", {"grad_mask": True}),
    "a boolean mask": (
        "grad_mask",
        "additive attn_mask, of a floating dtype; attn_mask is boolean",
        {"grad_mask": True, "attn_mask": np.ones((6, 5), bool)},
    ),
    "a flag": ("flag", "grad_mask must be True or False, got int", {"grad_mask": 2}),
    "what attention refuses, too": ("same_rank", "key must have as many", {"key": ones(5, 8)}),
    "an option": ("softcap", "softcap must be", {"softcap": -1.0}),
    "integers": ("floats", "lse must be float64", {"lse": np.ones((2, 4, 6), np.int32)}),
    "no array": (TypeError, "lse must be an array .* got float", {"lse": 1.0}),
    "library": (
        TypeError,
        "out must be of the same library as query, numpy; it is of lender",
        {"out": Shared(ones(2, 4, 6, 3))},
    ),
    "library of dlse": (
        TypeError,
        "dlse must be of the same library as query, numpy",
        {"dlse": Shared(ones(2, 4, 6))},
    ),
    "library of a mask whose gradient is asked for": (
        TypeError,
        "attn_mask must be of the same library as query, numpy",
        {"attn_mask": Shared(ones(6, 5)), "grad_mask": True},
    ),
    "no seed": ("no_seed", "dropout_p is 0.5, so seed must be given", {"dropout_p": 0.5}),
}


@pytest.mark.parametrize("name", BACKWARD)
def test_refused(name):
    rule, message, wrong = BACKWARD[name]
    arguments = good() | wrong
    refuses(lambda: fanano.attention_backward(**arguments), rule, message)


def test_the_good_call_is_good():
    got = fanano.attention_backward(**good())
    assert [x is None for x in got] == [False, False, False, True, True]
    assert got._fields == ("dq", "dk", "dv", "dbias", "dsinks")


def test_explain_refuses_the_same():
    arrays = [good()[name] for name in ("query", "key", "value")]

    def explain(**options):
        return lambda: fanano.explain(*arrays, **options)

    options = {"backward": True, "grad_mask": True}
    for name in "no mask", "a boolean mask":
        rule, message, wrong = BACKWARD[name]
        refuses(explain(**options | wrong), rule, message)
    refuses(explain(backward=1), "flag", "backward must be True or False, got int")
    refuses(explain(grad_mask=True), ValueError, "grad_mask is an option of the backward pass")
