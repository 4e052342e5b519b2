"""What softmax, SoftmaxState, merge_states and set_num_threads refuse."""

import numpy as np
import pytest
from lender import Lender
from refusals import ones, refuses

import fanano

V, T = ValueError, TypeError
SMALL = np.ones((3, 4), np.float32)
OTHERS = {
    "softmax of a list": (T, "x must be an array .* got list", lambda: fanano.softmax([1.0])),
    "softmax of ints": (
        "floats",
        "x must be float64.* it is int64",
        lambda: fanano.softmax(np.arange(3)),
    ),
    "softmax of one number": (
        "no_axis",
        "x must have at least one axis",
        lambda: fanano.softmax(np.array(1.0)),
    ),
    "softmax's axis": (
        "axis",
        r"axis must be -2 to 1 for x of shape \(3, 4\), got 2",
        lambda: fanano.softmax(SMALL, axis=2),
    ),
    "softmax's axis, negative": (
        "axis",
        "axis must be -2 to 1 .* got -3",
        lambda: fanano.softmax(SMALL, axis=-3),
    ),
    "softmax's axis, far": (
        "int64",
        "axis is 1267650600228229401496703205376, which",
        lambda: fanano.softmax(SMALL, axis=2**100),
    ),
    "softmax's axis's type": (
        "integer",
        "axis must be an integer, got float",
        lambda: fanano.softmax(SMALL, axis=0.0),
    ),
    "softmax has no flash": (
        "name",
        'algorithm must be "naive", "safe" or "online", got "flash"',
        lambda: fanano.softmax(SMALL, algorithm="flash"),
    ),
    "absorb a list": (T, "scores must be an array", lambda: fanano.SoftmaxState().absorb([1.0])),
    "absorb a matrix": (
        "scores_axis",
        r"scores must have one axis; they have shape \(3, 4\)",
        lambda: fanano.SoftmaxState().absorb(SMALL),
    ),
    "absorb ints": (
        "floats",
        "scores must be float64",
        lambda: fanano.SoftmaxState().absorb(np.arange(3)),
    ),
    "merge a number": (
        T,
        "other must be a SoftmaxState, got float",
        lambda: fanano.SoftmaxState().merge(1.0),
    ),
    "threads": ("threads", "threads", lambda: fanano.set_num_threads(0)),
    "too many threads": ("threads", "4097", lambda: fanano.set_num_threads(4097)),
    "negative threads": ("threads", "threads", lambda: fanano.set_num_threads(-(2**40))),
    "no axis": (
        "integer",
        "axis must be an integer, got .*None",
        lambda: fanano.softmax(SMALL, axis=None),
    ),
    "no threads": ("integer", "threads must be an integer", lambda: fanano.set_num_threads(None)),
    "threads' type": (
        "integer",
        "threads must be an integer, got float",
        lambda: fanano.set_num_threads(1.0),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions(name, threads):
    rule, message, call = OTHERS[name]
    refuses(call, rule, message)


MERGE = {
    "a list": (T, "lse_b must be an array", {"lse_b": [0.0]}),
    "dtypes": (
        "same_dtype",
        "out_b must have the dtype of out_a, float32; it is float64",
        {"out_b": SMALL.astype(float)},
    ),
    "shapes": (
        "same_shape",
        r"out_b must have the shape of out_a, \(3, 4\); it has shape \(4, 3\)",
        {"out_b": ones(4, 3)},
    ),
    "lse's dtype": (
        "lse_dtype",
        "lse_a must be float32 for float32 results; it is float64",
        {"lse_a": np.zeros(3)},
    ),
    "lse's shape": (
        "lse_shape",
        r"lse_b must have the shape of out_a without its last axis, \(3,\); it has "
        r'shape \(4,\).*layout="bshd"',
        {"lse_b": ones(4)},
    ),
    "a number": (
        "no_axis",
        "out_a must have at least one axis",
        {"out_a": np.array(1, np.float32)},
    ),
    "another library": (
        T,
        "lse_a must be of the same library as out_a",
        {"lse_a": Lender(ones(3))},
    ),
}


@pytest.mark.parametrize("name", MERGE)
def test_merge_states(name):
    rule, message, wrong = MERGE[name]
    arguments = {"out_a": SMALL, "lse_a": ones(3), "out_b": SMALL, "lse_b": ones(3)} | wrong
    refuses(lambda: fanano.merge_states(**arguments), rule, message)
