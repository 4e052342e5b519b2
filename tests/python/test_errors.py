"""What attention refuses of arrays: which rule, what its message names, that nothing was written
before; and that explain refuses the same."""

import ml_dtypes
import numpy as np
import pytest
from lender import Lender
from refusals import good, misaligned, ones, refuses, refuses_attention, refuses_explain

import fanano


def stacked_out():
    """Writable, but its elements share places."""
    return np.lib.stride_tricks.as_strided(ones(64), (2, 4, 6, 3), (0, 0, 12, 4))


def read_only():
    out = good()["out"]
    out.flags.writeable = False
    return out


def half_steps(*shape):
    """float32 elements every 6 bytes."""
    pairs = np.zeros(shape, [("number", np.float32), ("gap", np.int16)])
    return pairs["number"]


SHARED = ones(2, 4, 6, 8)

T = TypeError

# What is refused: by which row of the core's table, or with which exception of Python's side; words
# of the message; what is wrong in a good call.
ARRAYS = {
    # ranks
    "rank 1": (
        "rank",
        r"query must have 2, 3 or 4 axes: .*\(B, H, S, D\).* shape \(8,\)",
        {"query": ones(8)},
    ),
    "rank 5": (
        "rank",
        r"query must have 2, 3 or 4 axes.*\(1, 2, 4, 6, 8\)",
        {"query": ones(1, 2, 4, 6, 8)},
    ),
    "rank of bshd": (
        "rank",
        r"\(S, H, D\) or \(B, S, H, D\)",
        {"query": ones(8), "layout": "bshd"},
    ),
    "key's rank": (
        "same_rank",
        r"key must have as many axes as query, 4; .*\(2, 5, 8\)",
        {"key": ones(2, 5, 8)},
    ),
    "value's rank": (
        "same_rank",
        r"value must have as many axes as query, 4",
        {"value": ones(5, 3)},
    ),
    "out's rank": (
        "result_shape",
        r"out must have shape \(2, 4, 6, 3\); it has shape \(4, 6, 3\)",
        {"out": ones(4, 6, 3)},
    ),
    # shapes
    "key's batch": (
        "same_extent",
        r"key of shape \(3, 2, 5, 8\) must have the same batch size as query of shape "
        r"\(2, 4, 6, 8\)",
        {"key": ones(3, 2, 5, 8)},
    ),
    "value's batch": (
        "same_extent",
        "value of shape .* the same batch size as query",
        {"value": ones(1, 2, 5, 3)},
    ),
    "head dims": (
        "same_extent",
        r"key of shape .* the same head dimension as query .*axis 3",
        {"key": ones(2, 2, 5, 9)},
    ),
    "value's heads": (
        "same_extent",
        "value of shape .* the same number of heads as key",
        {"value": ones(2, 1, 5, 3)},
    ),
    "value's length": (
        "same_extent",
        "value of shape .* the same number of positions as key",
        {"value": ones(2, 2, 4, 3)},
    ),
    "D = 0": (
        "dim",
        r"head dimension, query's last axis, must be 1 to 576; .*\(2, 4, 6, 0\)",
        {"query": ones(2, 4, 6, 0), "key": ones(2, 2, 5, 0)},
    ),
    "D = 577": (
        "dim",
        "must be 1 to 576",
        {"query": ones(2, 4, 6, 577), "key": ones(2, 2, 5, 577)},
    ),
    "Dv = 577": ("value_dim", "value's last axis must be 0 to 576", {"value": ones(2, 2, 5, 577)}),
    "heads": (
        "heads",
        r"number of query heads must be a multiple of the number of key heads: query .* has 4, "
        r"key .* has 3$",
        {"key": ones(2, 3, 5, 8), "value": ones(2, 3, 5, 3)},
    ),
    "no key heads": (
        "heads",
        "has 4, key of shape .* has 0$",
        {"key": ones(2, 0, 5, 8), "value": ones(2, 0, 5, 3)},
    ),
    "swapped axes": (
        "swapped_heads",
        r'has 6, .* has 9; if axis 2 holds the heads, pass layout="bshd"',
        {"query": ones(2, 6, 4, 8), "key": ones(2, 9, 2, 8), "value": ones(2, 9, 2, 3)},
    ),
    "swapped back": (
        "swapped_heads",
        'if axis 1 holds the heads, pass layout="bhsd"',
        {"query": ones(2, 4, 6, 8), "key": ones(2, 2, 5, 8), "layout": "bshd"},
    ),
    "swapped 3-D": (
        "swapped_heads",
        'if axis 1 holds the heads, pass layout="bshd"',
        {"query": ones(6, 4, 8), "key": ones(9, 2, 8), "value": ones(9, 2, 3)},
    ),
    "out's shape": (
        "result_shape",
        r"out must have shape \(2, 4, 6, 3\); it has shape \(2, 4, 6, 8\)",
        {"out": ones(2, 4, 6, 8)},
    ),
    # dtypes
    "int": (
        "floats",
        "query must be float64, float32, bfloat16 or float16; it is int32",
        {"query": ones(2, 4, 6, 8, dtype=np.int32)},
    ),
    "uint": (
        "floats",
        "value must be float64.* it is uint8",
        {"value": ones(2, 2, 5, 3, dtype=np.uint8)},
    ),
    "bool": ("floats", "key must be float64.* it is bool", {"key": ones(2, 2, 5, 8, dtype=bool)}),
    "complex": (
        "floats",
        "query .* it is complex64",
        {"query": ones(2, 4, 6, 8, dtype=np.complex64)},
    ),
    "longdouble": (
        "floats",
        "query .* it is (float128|longdouble)",
        {"query": ones(2, 4, 6, 8, dtype=np.longdouble)},
    ),
    "object": ("floats", "query .* it is object", {"query": ones(2, 4, 6, 8, dtype=object)}),
    "string": ("floats", "query .* it is <U1", {"query": ones(2, 4, 6, 8, dtype="U1")}),
    "bytes that are no bfloat16": (
        "floats",
        r"query .* it is \|V2",
        {"query": np.zeros((2, 4, 6, 8), "V2")},
    ),
    "byte order": (
        "byte_order",
        "query must have the byte order of this machine, got dtype >f4",
        {"query": ones(2, 4, 6, 8, dtype=">f4")},
    ),
    "mixed key": (
        "same_dtype",
        "key must have the dtype of query, float32; it is float16",
        {"key": ones(2, 2, 5, 8, dtype=np.float16)},
    ),
    "mixed value": (
        "same_dtype",
        "value must have the dtype of query",
        {"value": ones(2, 2, 5, 3, dtype=np.float64)},
    ),
    "out's dtype": (
        "result_dtype",
        "out must have dtype float32; it is float16",
        {"out": ones(2, 4, 6, 3, dtype=np.float16)},
    ),
    "out_dtype": (
        "out_dtype",
        "out_dtype must be float32 for float32 inputs, got float16",
        {"out_dtype": "float16"},
    ),
    "out_dtype's name": (
        "name",
        'out_dtype must be "float64", .* got "half"',
        {"out_dtype": "half"},
    ),
    "out_dtype's type": (
        T,
        "out_dtype must be a dtype or the name of one, got 3",
        {"out_dtype": 3},
    ),
    # not arrays, not one library
    "list": (T, "query must be an array .* got list; numpy.asarray", {"query": [[1.0]]}),
    "None": (T, "key must be an array .* got NoneType", {"key": None}),
    "scalar": (T, "value must be an array", {"value": np.float32(1)}),
    "bytes": (T, "query must be an array .* got bytes", {"query": b"12345678"}),
    "out is a list": (T, "out must be an array .* got list", {"out": [0.0]}),
    "masked array": (
        T,
        "query is a numpy.ma.MaskedArray, whose mask would be lost",
        {"query": np.ma.ones((2, 4, 6, 8))},
    ),
    "another library": (
        T,
        "key must be of the same library as query, numpy; it is of lender",
        {"key": Lender(ones(2, 2, 5, 8))},
    ),
    # memory
    "read-only out": ("read_only", "out is read-only", {"out": read_only()}),
    "out on itself": (
        "overlaps_itself",
        r"out of shape \(2, 4, 6, 3\) has strides \(0, 0, 3, 1\) by which elements may overlap",
        {"out": stacked_out()},
    ),
    "misaligned": (
        "alignment",
        "key is not aligned to its elements of 4 bytes",
        {"key": misaligned(2, 2, 5, 8)},
    ),
    "half steps": (
        "part_steps",
        r"query steps by parts of an element \(a stride of 6 bytes\)",
        {"query": half_steps(2, 4, 6, 8)},
    ),
    "out over an input": (
        "overlap",
        "out shares its memory range with query, .* pass a separate array",
        {"query": SHARED, "out": SHARED[..., :3]},
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_attention(name):
    refuses_attention(*ARRAYS[name])


@pytest.mark.parametrize(
    "name", [n for n, (_, _, wrong) in ARRAYS.items() if not {"out", "return_lse"} & set(wrong)]
)
def test_explain_checks_the_same(name):
    refuses_explain(*ARRAYS[name])


def test_the_good_call_is_good():
    arguments = good()
    assert fanano.attention(**arguments) is arguments["out"]
    assert (arguments["out"] == 1).all()


SMALL_DTYPES = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float6_e2m3fn", "float4_e2m1fn"]
SMALL_DTYPES += ["int4", "uint4", "int2", "complex32", "bcomplex32"]


@pytest.mark.parametrize("name", SMALL_DTYPES)
def test_dtypes_of_ml_dtypes(name):
    if not hasattr(ml_dtypes, name):
        pytest.skip(f"this ml_dtypes has no {name}")
    x = np.zeros((2, 4, 6, 8), getattr(ml_dtypes, name))
    message = f"query must be float64, float32, bfloat16 or float16; it is {name}$"
    refuses(lambda: fanano.attention(**good() | {"query": x}), "floats", message)
    message = f"kv_lengths must be int32 or int64; it is {name}$"
    refuses(lambda: fanano.attention(**good(), kv_lengths=x[0, 0, 0, :2]), "integers", message)
