"""The core's table of refusals: a row is there because some check needs it, and a test provokes it.

The other files of errors hold a table of cases each, which name the row that they provoke; here are
the rows that these do not reach, and whether all are there.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import test_backward_errors
import test_device_errors
import test_dlpack
import test_errors
import test_ladder_errors
import test_option_errors
from lender import Shared, exchange_type
from refusals import ROWS, ones, refuses, says

import fanano
from fanano import _core

X = ones(3)


def softmax(x, empty=None):
    """As the facade calls it; without `empty`, results are made by the DLPack exchange of x."""
    return _core.softmax(x, -1, "online", empty, 0)


def explain_huge():
    """Every element stands at one place, so that shapes may be as large as they like."""
    x = np.lib.stride_tricks.as_strided(ones(8), (2**40, 8), (0, 4))
    return fanano.explain(x, x, x, algorithm="safe")


# By which row it is refused, words of the message, the call.
REST = {
    "no array": ("array", r"x must be an array .* got list$", lambda: softmax([1.0])),
    "a library that fails": (
        "unreadable_because",
        r"scores cannot be read as an array: __dlpack__\(\) failed: .*not today",
        lambda: fanano.SoftmaxState().absorb(test_dlpack.Fails(X)),
    ),
    "a library that fails and is silent": (
        "unreadable",
        "x cannot be read as an array: its library's DLPack exchange failed$",
        lambda: softmax(exchange_type()()),
    ),
    "a library that makes nothing": (
        "not_made",
        r"out of shape \(3,\) was refused by its library: no room$",
        lambda: softmax(exchange_type(X)()),
    ),
    "a library without exchange": (
        "no_exchange",
        "x is of a type without DLPack exchange",
        lambda: softmax(X),
    ),
    "made with another shape": (
        "made_otherwise",
        r"out was asked of its library with shape \(3,\) and dtype float32; it came with shape "
        r"\(4,\) and dtype float32",
        lambda: softmax(X, lambda *_: ones(4)),
    ),
    "made with another dtype": (
        "made_otherwise",
        "it came with shape .* and dtype float64",
        lambda: softmax(X, lambda *_: np.ones(3)),
    ),
    "made on another device": (
        "made_elsewhere",
        "out was asked of its library on CPU; it came on CUDA:0: pass out",
        lambda: softmax(X, lambda *_: test_device_errors.on_device(ones(3))),
    ),
    "out from before DLPack 1": (
        "unflagged",
        r"out is of type \S*Shared, .* \(DLPack 0\); leave out away",
        lambda: fanano.attention(
            *[Shared(ones(4, 8))] * 3, out=Shared(ones(4, 8), versioned=False)
        ),
    ),
    "no memory": (
        "no_memory",
        r"there is no memory for an array of shape \(4611686018427387904, 8\)",
        lambda: _core.Buffer((2**62, 8), "float32"),
    ),
    "no stream": (
        "stream",
        "stream is 0, which DLPack leaves undefined on CUDA: pass 1, .* 2, ",
        lambda: _core.Buffer((3,), "float32", 0, 0),
    ),
    "shape's type": (
        "extents",
        "shape must be a tuple of integers, got int",
        lambda: _core.Buffer(3, "float32"),
    ),
    "a step without a backward pass": (
        "no_backward",
        'algorithm="safe" has no backward pass; "flash", of which',
        lambda: fanano.explain(*[ones(4, 8)] * 3, algorithm="safe", backward=True),
    ),
    "scores beyond counting": (
        "scores_memory",
        "algorithm='safe' would materialise more scores .*; use algorithm='flash'",
        explain_huge,
    ),
}


@pytest.mark.parametrize("name", REST)
def test_the_rest(name):
    rule, message, call = REST[name]
    refuses(call, rule, message)


# The same, with the environment variable in the place of the call.
ENVIRONMENT = {
    "threads": (
        "threads_variable",
        "FANANO_NUM_THREADS=4097: expected a whole number from 1 to 4096",
        {"FANANO_NUM_THREADS": "4097"},
    ),
    "unknown ISA": (
        "isa_unknown",
        "FANANO_ISA=avx3 is not compiled in; expected one of .*scalar",
        {"FANANO_ISA": "avx3"},
    ),
    **{
        f"{k.isa} here": ("isa_lacking", f"FANANO_ISA={k.isa}: {k.why_not}", {"FANANO_ISA": k.isa})
        for k in fanano.kernels()
        if k.device == "cpu" and not k.runnable
    },
}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_environment(name):
    rule, message, variables = ENVIRONMENT[name]
    code = "import fanano; fanano.kernels(); fanano.get_num_threads()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    exception, words = ROWS[rule]
    kind, _, text = done.stderr.strip().splitlines()[-1].partition(": ")
    assert kind == exception.__name__
    assert says(words, text)
    assert re.search(message, text)


def test_which_errors_are_of_types():
    """All others are ValueErrors. Callers catch these by name, so they are written down twice."""
    assert {id for id, (exception, _) in ROWS.items() if exception is TypeError} == {
        *("string", "flag", "number", "integer", "extents", "pair", "offsets"),
        *("array", "unreadable", "unreadable_because", "device_pair", "no_capsule"),
        *("unflagged", "dlpack_version", "byte_order", "no_exchange", "not_made", "made_otherwise"),
        "made_elsewhere",
        *("floats", "mask", "integers", "same_dtype", "result_dtype", "lse_dtype"),
    }
    missing = {id for id, (exception, _) in ROWS.items() if exception is NotImplementedError}
    assert missing == {"materialised_dropout", "no_backward", "no_cuda", "no_cuda_kernel"}
    assert {id for id, (exception, _) in ROWS.items() if exception is RuntimeError} == {"cuda"}
    assert len({exception for exception, _ in ROWS.values()}) == 4


def test_every_row_is_provoked():
    tables = (
        test_errors.ARRAYS,
        test_backward_errors.BACKWARD,
        test_option_errors.OPTIONS,
        test_ladder_errors.OTHERS,
        test_ladder_errors.MERGE,
        test_dlpack.HOSTILE,
        test_dlpack.PROTOCOL,
        test_device_errors.DEVICES,
        REST,
        ENVIRONMENT,
    )
    provoked = {rule for table in tables for rule, *_ in table.values() if isinstance(rule, str)}
    if all(kernel.runnable for kernel in fanano.kernels() if kernel.device == "cpu"):
        provoked.add("isa_lacking")  # tests/cpp/cpu/isa_test.cpp provokes it on every machine
    provoked |= {"no_cuda_kernel", "cuda"}  # tests/cuda/forward_on_device_test.cpp
    assert provoked == set(ROWS)
