"""Every refusal: which exception, what its message names, and that nothing was written before."""

import ml_dtypes
import numpy as np
import pytest
from lender import Lender

import fanano

SENTINEL = 7.0


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def good():
    """A call without a mistake: two sequences, four query heads over two key heads."""
    return {
        "query": ones(2, 4, 6, 8),
        "key": ones(2, 2, 5, 8),
        "value": ones(2, 2, 5, 3),
        "out": np.full((2, 4, 6, 3), SENTINEL, np.float32),
    }


def stacked_out():
    """Writable, but its elements share places."""
    return np.lib.stride_tricks.as_strided(ones(64), (2, 4, 6, 3), (0, 0, 12, 4))


def read_only():
    out = good()["out"]
    out.flags.writeable = False
    return out


def misaligned(*shape):
    return np.frombuffer(bytearray(4 * int(np.prod(shape)) + 1), np.float32, offset=1).reshape(
        shape
    )


def half_steps(*shape):
    """float32 elements every 6 bytes."""
    pairs = np.zeros(shape, [("number", np.float32), ("gap", np.int16)])
    return pairs["number"]


V, T = ValueError, TypeError
ATTENTION = {
    # ranks
    "rank 1": (
        V,
        r"query must have 2, 3 or 4 axes: .*\(B, H, S, D\).* shape \(8,\)",
        {"query": ones(8)},
    ),
    "rank 5": (
        V,
        r"query must have 2, 3 or 4 axes.*\(1, 2, 4, 6, 8\)",
        {"query": ones(1, 2, 4, 6, 8)},
    ),
    "rank of bshd": (V, r"\(S, H, D\) or \(B, S, H, D\)", {"query": ones(8), "layout": "bshd"}),
    "key's rank": (
        V,
        r"key must have as many axes as query, 4; .*\(2, 5, 8\)",
        {"key": ones(2, 5, 8)},
    ),
    "value's rank": (V, r"value must have as many axes as query, 4", {"value": ones(5, 3)}),
    "out's rank": (
        V,
        r"out must have shape \(2, 4, 6, 3\); it has shape \(4, 6, 3\)",
        {"out": ones(4, 6, 3)},
    ),
    # shapes
    "key's batch": (
        V,
        r"key of shape \(3, 2, 5, 8\) must have the same batch size as query of shape "
        r"\(2, 4, 6, 8\)",
        {"key": ones(3, 2, 5, 8)},
    ),
    "value's batch": (
        V,
        "value of shape .* the same batch size as query",
        {"value": ones(1, 2, 5, 3)},
    ),
    "head dims": (
        V,
        r"key of shape .* the same head dimension as query .*axis 3",
        {"key": ones(2, 2, 5, 9)},
    ),
    "value's heads": (
        V,
        "value of shape .* the same number of heads as key",
        {"value": ones(2, 1, 5, 3)},
    ),
    "value's length": (
        V,
        "value of shape .* the same number of positions as key",
        {"value": ones(2, 2, 4, 3)},
    ),
    "D = 0": (
        V,
        r"head dimension, query's last axis, must be 1 to 576; .*\(2, 4, 6, 0\)",
        {"query": ones(2, 4, 6, 0), "key": ones(2, 2, 5, 0)},
    ),
    "D = 577": (V, "must be 1 to 576", {"query": ones(2, 4, 6, 577), "key": ones(2, 2, 5, 577)}),
    "Dv = 577": (V, "value's last axis must be 0 to 576", {"value": ones(2, 2, 5, 577)}),
    "heads": (
        V,
        r"number of query heads must be a multiple of the number of key heads: query .* has 4, "
        r"key .* has 3$",
        {"key": ones(2, 3, 5, 8), "value": ones(2, 3, 5, 3)},
    ),
    "no key heads": (
        V,
        "has 4, key of shape .* has 0$",
        {"key": ones(2, 0, 5, 8), "value": ones(2, 0, 5, 3)},
    ),
    "swapped axes": (
        V,
        r'has 6, .* has 9; if axis 2 holds the heads, pass layout="bshd"',
        {"query": ones(2, 6, 4, 8), "key": ones(2, 9, 2, 8), "value": ones(2, 9, 2, 3)},
    ),
    "swapped back": (
        V,
        'if axis 1 holds the heads, pass layout="bhsd"',
        {"query": ones(2, 4, 6, 8), "key": ones(2, 2, 5, 8), "layout": "bshd"},
    ),
    "swapped 3-D": (
        V,
        'if axis 1 holds the heads, pass layout="bshd"',
        {"query": ones(6, 4, 8), "key": ones(9, 2, 8), "value": ones(9, 2, 3)},
    ),
    "out's shape": (
        V,
        r"out must have shape \(2, 4, 6, 3\); it has shape \(2, 4, 6, 8\)",
        {"out": ones(2, 4, 6, 8)},
    ),
    # dtypes
    "int": (
        T,
        "query must be float64, float32, bfloat16 or float16; it is int32",
        {"query": ones(2, 4, 6, 8, dtype=np.int32)},
    ),
    "uint": (T, "value must be float64.* it is uint8", {"value": ones(2, 2, 5, 3, dtype=np.uint8)}),
    "bool": (T, "key must be float64.* it is bool", {"key": ones(2, 2, 5, 8, dtype=bool)}),
    "complex": (T, "query .* it is complex64", {"query": ones(2, 4, 6, 8, dtype=np.complex64)}),
    "longdouble": (
        T,
        "query .* it is (float128|longdouble)",
        {"query": ones(2, 4, 6, 8, dtype=np.longdouble)},
    ),
    "object": (T, "query .* it is object", {"query": ones(2, 4, 6, 8, dtype=object)}),
    "string": (T, "query .* it is <U1", {"query": ones(2, 4, 6, 8, dtype="U1")}),
    "bytes that are no bfloat16": (
        T,
        r"query .* it is \|V2",
        {"query": np.zeros((2, 4, 6, 8), "V2")},
    ),
    "byte order": (
        T,
        "query must have the byte order of this machine, got dtype >f4",
        {"query": ones(2, 4, 6, 8, dtype=">f4")},
    ),
    "mixed key": (
        T,
        "key must have the dtype of query, float32; it is float16",
        {"key": ones(2, 2, 5, 8, dtype=np.float16)},
    ),
    "mixed value": (
        T,
        "value must have the dtype of query",
        {"value": ones(2, 2, 5, 3, dtype=np.float64)},
    ),
    "out's dtype": (
        T,
        "out must have dtype float32; it is float16",
        {"out": ones(2, 4, 6, 3, dtype=np.float16)},
    ),
    "out_dtype": (
        V,
        "out_dtype must be float32 for float32 inputs, got float16",
        {"out_dtype": "float16"},
    ),
    "out_dtype's name": (V, 'out_dtype must be "float64", .* got "half"', {"out_dtype": "half"}),
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
    "read-only out": (V, "out is read-only", {"out": read_only()}),
    "out on itself": (
        V,
        r"out of shape \(2, 4, 6, 3\) has strides \(0, 0, 3, 1\) by which elements may overlap",
        {"out": stacked_out()},
    ),
    "misaligned": (
        V,
        "key is not aligned to its elements of 4 bytes",
        {"key": misaligned(2, 2, 5, 8)},
    ),
    "half steps": (
        V,
        r"query steps by parts of an element \(a stride of 6 bytes\)",
        {"query": half_steps(2, 4, 6, 8)},
    ),
    # options
    "scale NaN": (V, "scale must be a finite number, got nan", {"scale": float("nan")}),
    "scale inf": (V, "scale must be a finite number, got -inf", {"scale": -np.inf}),
    "scale's size": (V, "scale is out of the range of float64", {"scale": 10**400}),
    "scale's type": (T, "scale must be a number, got str", {"scale": "1"}),
    "scale is bool": (T, "scale must be a number, got bool", {"scale": True}),
    "layout": (V, 'layout must be "bhsd" or "bshd", got "sbhd"', {"layout": "sbhd"}),
    "layout with a NUL": (V, r"layout must be a name .*'bhsd\\x00'", {"layout": "bhsd\0"}),
    "algorithm with a surrogate": (
        V,
        r"algorithm must be a name .*'\\ud800'",
        {"algorithm": "\ud800"},
    ),
    "out_dtype with a NUL": (V, "out_dtype must be a name", {"out_dtype": "float32\0"}),
    "layout's type": (T, "layout must be a string, got int", {"layout": 1}),
    "algorithm": (
        V,
        'algorithm must be "naive", "safe", "online" or "flash", got "fast"',
        {"algorithm": "fast"},
    ),
    "algorithm's type": (T, "algorithm must be a string, got .*NoneType", {"algorithm": None}),
    "is_causal": (T, "is_causal must be True or False, got int", {"is_causal": 1}),
    "return_lse": (T, "return_lse must be True or False, got .*NoneType", {"return_lse": None}),
    # lengths and offsets
    "lengths' count": (
        V,
        "kv_lengths must have one number for each sequence of the batch, 2; it has 3",
        {"kv_lengths": [1, 2, 3]},
    ),
    "long keys": (
        V,
        "kv_lengths must be 0 to 5, the positions that key has; number 1 is 6",
        {"kv_lengths": [5, 6]},
    ),
    "long queries": (
        V,
        "q_lengths must be 0 to 6, the positions that query has; number 0 is 7",
        {"q_lengths": np.array([7, 6])},
    ),
    "negative length": (
        V,
        "kv_lengths must be 0 to 5.* number 0 is -1",
        {"kv_lengths": np.array([-1, 2], np.int32)},
    ),
    "one length": (V, "kv_lengths must be 0 to 5.* it is 9", {"kv_lengths": 9}),
    "float lengths": (
        T,
        "kv_lengths must be int32 or int64; it is float64",
        {"kv_lengths": np.array([1.0, 2.0])},
    ),
    "bool lengths": (
        T,
        "q_lengths must be int32 or int64; it is bool",
        {"q_lengths": np.array([True, False])},
    ),
    "small lengths": (
        T,
        "q_lengths must be int32 or int64; it is int16",
        {"q_lengths": np.array([1, 2], np.int16)},
    ),
    "listed floats": (T, "q_lengths must be an integer, got float", {"q_lengths": [1.0, 2.0]}),
    "listed bools": (T, "q_lengths must be an integer, got bool", {"q_lengths": [True, 2]}),
    "lengths' rank": (
        V,
        r"kv_lengths must have one axis; it has shape \(1, 2\)",
        {"kv_lengths": np.array([[1, 2]])},
    ),
    "lengths are a word": (T, "kv_lengths must be an integer, got str", {"kv_lengths": "12"}),
    "offset's type": (T, "q_offset must be an integer, got float", {"q_offset": 1.5}),
    "offset is bool": (T, "q_offset must be an integer, got bool", {"q_offset": True}),
    "offset's size": (
        V,
        "q_offset is 9223372036854775808, which does not fit in 64 bits",
        {"q_offset": 2**63},
    ),
    "offset's digits": (V, "q_offset is .*does not fit in 64 bits", {"q_offset": 10**5000}),
    "endless lengths": (
        V,
        "kv_lengths must have one number for each sequence of the batch, 2; it has 35184372088832",
        {"kv_lengths": np.broadcast_to(np.int64(1), (2**45,))},
    ),
    "offset's count": (
        V,
        "q_offset must have one number for each sequence of the batch, 2; it has 1",
        {"q_offset": [0]},
    ),
    # masks and what is added to the scores
    "mask's shape": (
        V,
        r"attn_mask must broadcast against \(B, Hq, Sq, Sk\), \(2, 4, 6, 5\); "
        r"it has shape \(2, 6, 5\)",
        {"attn_mask": ones(2, 6, 5)},
    ),
    "mask's rank": (V, r"it has shape \(1, 1, 1, 6, 5\)", {"attn_mask": ones(1, 1, 1, 6, 5)}),
    "mask's extent": (V, r"it has shape \(0,\)", {"attn_mask": ones(0)}),
    "mask's dtype": (
        T,
        r"attn_mask must be bool \(True may attend\), or float64, .* it is int64",
        {"attn_mask": ones(6, 5, dtype=np.int64)},
    ),
    "mask is a list": (T, "attn_mask must be an array", {"attn_mask": [[True] * 5] * 6}),
    "masked mask": (T, "attn_mask is a numpy.ma.MaskedArray", {"attn_mask": np.ma.ones((6, 5))}),
    "misaligned mask": (V, "attn_mask .* aligned", {"attn_mask": misaligned(6, 5)}),
    "window's type": (
        T,
        r"window_size must be a pair \(left, right\), got int",
        {"window_size": 4},
    ),
    "window's length": (T, "window_size must be a pair", {"window_size": (1, 2, 3)}),
    "window's side": (T, "window_size must be an integer, got float", {"window_size": (1.0, 2)}),
    "window's size": (V, "window_size is .*does not fit", {"window_size": (0, 2**63)}),
    "softcap < 0": (
        V,
        r"softcap must be a positive finite number, or 0 or None for none, got -2\.0",
        {"softcap": -2},
    ),
    "softcap inf": (V, "softcap must be .* got inf", {"softcap": np.inf}),
    "softcap nan": (V, "softcap must be .* got -?nan", {"softcap": np.nan}),
    "softcap's type": (T, "softcap must be a number, got str", {"softcap": "30"}),
    "slopes' shape": (
        V,
        r"alibi_slopes must have shape \(Hq,\), \(4,\), or \(B, Hq\), \(2, 4\); "
        r"it has shape \(2,\)",
        {"alibi_slopes": ones(2)},
    ),
    "slopes' rank": (V, "alibi_slopes must have one or two axes", {"alibi_slopes": ones(1, 2, 4)}),
    "slopes' rows": (V, r"alibi_slopes .* shape \(1, 4\)", {"alibi_slopes": [[1, 2, 3, 4]]}),
    "ragged slopes": (
        V,
        "alibi_slopes has rows of 4 and of 3 numbers",
        {"alibi_slopes": [[1, 2, 3, 4], [1, 2, 3]]},
    ),
    "mixed slopes": (V, "alibi_slopes has rows and numbers", {"alibi_slopes": [1, [2], 3, 4]}),
    "mixed slopes, too": (V, "alibi_slopes has rows and num", {"alibi_slopes": [[1], 2, 3, 4]}),
    "slopes' dtype": (
        T,
        "alibi_slopes must be float64, .* it is int64",
        {"alibi_slopes": ones(4, dtype=np.int64)},
    ),
    "slopes' type": (T, "alibi_slopes must be a number, got str", {"alibi_slopes": "steep"}),
    "a slope's type": (T, "alibi_slopes must be a num", {"alibi_slopes": [1, 2, 3, None]}),
    "infinite slope": (
        V,
        "alibi_slopes must be finite numbers; number 1 is inf",
        {"alibi_slopes": [1, np.inf, 1, 1]},
    ),
    "sinks' shape": (
        V,
        r"sinks must have shape \(Hq,\), \(4,\); it has shape \(2, 4\)",
        {"sinks": ones(2, 4)},
    ),
    "no sinks": (V, r"sinks must have shape .* it has shape \(0,\)", {"sinks": []}),
    "infinite sink": (
        V,
        "sinks must be finite numbers, or -inf for none; number 2 is inf",
        {"sinks": [1, 1, np.inf, 1]},
    ),
    "sink nan": (V, "sinks must be finite .* is -?nan", {"sinks": np.float32([1, 1, 1, np.nan])}),
    # what is not there yet
    **{
        option: (NotImplementedError, f"^{option} is not there yet", {option: given})
        for option, given in {
            "dropout_p": 0.1,
            "seed": 7,
            "dropout_offset": (0, 0, 1, 0),
        }.items()
    },
}


class Interrupted:
    """A number that the user interrupts."""

    def __index__(self):
        raise KeyboardInterrupt

    __float__ = __index__


@pytest.mark.parametrize(
    "option", ["scale", "q_offset", "kv_lengths", "softcap", "alibi_slopes", "sinks"]
)
def test_interrupts_pass_unchanged(option):
    with pytest.raises(KeyboardInterrupt):
        fanano.attention(**good() | {option: Interrupted()})


def refuses(call, exception, message):
    with pytest.raises(exception, match=message) as caught:
        call()
    assert caught.type is exception


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    exception, message, wrong = ATTENTION[name]
    arguments = good() | wrong
    refuses(lambda: fanano.attention(**arguments), exception, message)
    if "out" not in wrong:
        assert (arguments["out"] == SENTINEL).all()


def test_the_good_call_is_good():
    arguments = good()
    assert fanano.attention(**arguments) is arguments["out"]
    assert (arguments["out"] == 1).all()


@pytest.mark.parametrize(
    "name",
    [n for n, case in ATTENTION.items() if not {"out", "return_lse"} & set(case[2])],
)
def test_explain_checks_the_same(name):
    exception, message, wrong = ATTENTION[name]
    arguments = good() | wrong
    del arguments["out"]
    refuses(lambda: fanano.explain(**arguments), exception, message)


SMALL_DTYPES = ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float6_e2m3fn", "float4_e2m1fn"]
SMALL_DTYPES += ["int4", "uint4", "int2", "complex32", "bcomplex32"]


@pytest.mark.parametrize("name", SMALL_DTYPES)
def test_dtypes_of_ml_dtypes(name):
    if not hasattr(ml_dtypes, name):
        pytest.skip(f"this ml_dtypes has no {name}")
    x = np.zeros((2, 4, 6, 8), getattr(ml_dtypes, name))
    message = f"query must be float64, float32, bfloat16 or float16; it is {name}$"
    refuses(lambda: fanano.attention(**good() | {"query": x}), TypeError, message)
    message = f"kv_lengths must be int32 or int64; it is {name}$"
    refuses(lambda: fanano.attention(**good(), kv_lengths=x[0, 0, 0, :2]), TypeError, message)
