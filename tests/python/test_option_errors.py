"""What attention refuses of its options, as test_errors.py has it for arrays."""

import numpy as np
import pytest
from refusals import good, misaligned, ones, refuses_attention, refuses_explain

import fanano

T = TypeError

OPTIONS = {
    "scale NaN": ("scale", "scale must be a finite number, got nan", {"scale": float("nan")}),
    "scale inf": ("scale", "scale must be a finite number, got -inf", {"scale": -np.inf}),
    "scale's size": ("float64", "scale is out of the range of float64", {"scale": 10**400}),
    "scale's type": ("number", "scale must be a number, got str", {"scale": "1"}),
    "scale is bool": ("number", "scale must be a number, got bool", {"scale": True}),
    "layout": ("name", 'layout must be "bhsd" or "bshd", got "sbhd"', {"layout": "sbhd"}),
    "layout with a NUL": (
        "printable",
        r"layout must be a name .*'bhsd\\x00'",
        {"layout": "bhsd\0"},
    ),
    "algorithm with a surrogate": (
        "printable",
        r"algorithm must be a name .*'\\ud800'",
        {"algorithm": "\ud800"},
    ),
    "out_dtype with a NUL": ("printable", "out_dtype must be a name", {"out_dtype": "float32\0"}),
    "layout's type": ("string", "layout must be a string, got int", {"layout": 1}),
    "algorithm": (
        "name",
        'algorithm must be "naive", "safe", "online" or "flash", got "fast"',
        {"algorithm": "fast"},
    ),
    "algorithm's type": (
        "string",
        "algorithm must be a string, got .*NoneType",
        {"algorithm": None},
    ),
    "is_causal": ("flag", "is_causal must be True or False, got int", {"is_causal": 1}),
    "return_lse": (
        "flag",
        "return_lse must be True or False, got .*NoneType",
        {"return_lse": None},
    ),
    # lengths and offsets
    "lengths' count": (
        "by_batch",
        "kv_lengths must have one number for each sequence of the batch, 2; it has 3",
        {"kv_lengths": [1, 2, 3]},
    ),
    "long keys": (
        "lengths",
        "kv_lengths must be 0 to 5, the positions that key has; number 1 is 6",
        {"kv_lengths": [5, 6]},
    ),
    "long queries": (
        "lengths",
        "q_lengths must be 0 to 6, the positions that query has; number 0 is 7",
        {"q_lengths": np.array([7, 6])},
    ),
    "negative length": (
        "lengths",
        "kv_lengths must be 0 to 5.* number 0 is -1",
        {"kv_lengths": np.array([-1, 2], np.int32)},
    ),
    "one length": ("length", "kv_lengths must be 0 to 5.* it is 9", {"kv_lengths": 9}),
    "float lengths": (
        "integers",
        "kv_lengths must be int32 or int64; it is float64",
        {"kv_lengths": np.array([1.0, 2.0])},
    ),
    "bool lengths": (
        "integers",
        "q_lengths must be int32 or int64; it is bool",
        {"q_lengths": np.array([True, False])},
    ),
    "small lengths": (
        "integers",
        "q_lengths must be int32 or int64; it is int16",
        {"q_lengths": np.array([1, 2], np.int16)},
    ),
    "listed floats": (
        "integer",
        "q_lengths must be an integer, got float",
        {"q_lengths": [1.0, 2.0]},
    ),
    "listed bools": ("integer", "q_lengths must be an integer, got bool", {"q_lengths": [True, 2]}),
    "lengths' rank": (
        "one_axis",
        r"kv_lengths must have one axis; it has shape \(1, 2\)",
        {"kv_lengths": np.array([[1, 2]])},
    ),
    "lengths are a word": (
        "integer",
        "kv_lengths must be an integer, got str",
        {"kv_lengths": "12"},
    ),
    "offset's type": ("integer", "q_offset must be an integer, got float", {"q_offset": 1.5}),
    "offset is bool": ("integer", "q_offset must be an integer, got bool", {"q_offset": True}),
    "offset's size": (
        "int64",
        "q_offset is 9223372036854775808, which does not fit in 64 bits",
        {"q_offset": 2**63},
    ),
    "offset's digits": ("int64", "q_offset is .*does not fit in 64 bits", {"q_offset": 10**5000}),
    "endless lengths": (
        "by_batch",
        "kv_lengths must have one number for each sequence of the batch, 2; it has 35184372088832",
        {"kv_lengths": np.broadcast_to(np.int64(1), (2**45,))},
    ),
    "offset's count": (
        "by_batch",
        "q_offset must have one number for each sequence of the batch, 2; it has 1",
        {"q_offset": [0]},
    ),
    # masks and what is added to the scores
    "mask's shape": (
        "broadcast",
        r"attn_mask must broadcast against \(B, Hq, Sq, Sk\), \(2, 4, 6, 5\); "
        r"it has shape \(2, 6, 5\)",
        {"attn_mask": ones(2, 6, 5)},
    ),
    "mask's rank": (
        "broadcast",
        r"it has shape \(1, 1, 1, 6, 5\)",
        {"attn_mask": ones(1, 1, 1, 6, 5)},
    ),
    "mask's extent": ("broadcast", r"it has shape \(0,\)", {"attn_mask": ones(0)}),
    "mask's dtype": (
        "mask",
        r"attn_mask must be bool \(True may attend\), or float64, .* it is int64",
        {"attn_mask": ones(6, 5, dtype=np.int64)},
    ),
    "mask is a list": ("array", "attn_mask must be an array", {"attn_mask": [[True] * 5] * 6}),
    "masked mask": (T, "attn_mask is a numpy.ma.MaskedArray", {"attn_mask": np.ma.ones((6, 5))}),
    "misaligned mask": ("alignment", "attn_mask .* aligned", {"attn_mask": misaligned(6, 5)}),
    "window's type": (
        "pair",
        r"window_size must be a pair \(left, right\), got int",
        {"window_size": 4},
    ),
    "window's length": ("pair", "window_size must be a pair", {"window_size": (1, 2, 3)}),
    "window's side": (
        "integer",
        "window_size must be an integer, got float",
        {"window_size": (1.0, 2)},
    ),
    "window's size": ("int64", "window_size is .*does not fit", {"window_size": (0, 2**63)}),
    "softcap < 0": (
        "softcap",
        r"softcap must be a positive finite number, or 0 or None for none, got -2$",
        {"softcap": -2},
    ),
    "softcap inf": ("softcap", "softcap must be .* got inf", {"softcap": np.inf}),
    "softcap nan": ("softcap", "softcap must be .* got -?nan", {"softcap": np.nan}),
    "softcap's type": ("number", "softcap must be a number, got str", {"softcap": "30"}),
    "slopes' shape": (
        "by_head_and_batch",
        r"alibi_slopes must have shape \(Hq,\), \(4,\), or \(B, Hq\), \(2, 4\); "
        r"it has shape \(2,\)",
        {"alibi_slopes": ones(2)},
    ),
    "slopes' rank": (
        "one_or_two_axes",
        "alibi_slopes must have one or two axes",
        {"alibi_slopes": ones(1, 2, 4)},
    ),
    "slopes' rows": (
        "by_head_and_batch",
        r"alibi_slopes .* shape \(1, 4\)",
        {"alibi_slopes": [[1, 2, 3, 4]]},
    ),
    "ragged slopes": (
        "ragged",
        "alibi_slopes has rows of 4 and of 3 numbers",
        {"alibi_slopes": [[1, 2, 3, 4], [1, 2, 3]]},
    ),
    "mixed slopes": (
        "mixed",
        "alibi_slopes has rows and numbers",
        {"alibi_slopes": [1, [2], 3, 4]},
    ),
    "mixed slopes, too": (
        "mixed",
        "alibi_slopes has rows and num",
        {"alibi_slopes": [[1], 2, 3, 4]},
    ),
    "slopes' dtype": (
        "floats",
        "alibi_slopes must be float64, .* it is int64",
        {"alibi_slopes": ones(4, dtype=np.int64)},
    ),
    "slopes' type": ("number", "alibi_slopes must be a number, got str", {"alibi_slopes": "steep"}),
    "a slope's type": ("number", "alibi_slopes must be a num", {"alibi_slopes": [1, 2, 3, None]}),
    "infinite slope": (
        "slope",
        "alibi_slopes must be finite numbers; number 1 is inf",
        {"alibi_slopes": [1, np.inf, 1, 1]},
    ),
    "sinks' shape": (
        "by_head",
        r"sinks must have shape \(Hq,\), \(4,\); it has shape \(2, 4\)",
        {"sinks": ones(2, 4)},
    ),
    "no sinks": ("by_head", r"sinks must have shape .* it has shape \(0,\)", {"sinks": []}),
    "infinite sink": (
        "sink",
        "sinks must be finite numbers, or -inf for none; number 2 is inf",
        {"sinks": [1, 1, np.inf, 1]},
    ),
    "sink nan": (
        "sink",
        "sinks must be finite .* is -?nan",
        {"sinks": np.float32([1, 1, 1, np.nan])},
    ),
    "dropout_p": ("dropout_p", "dropout_p must be .*, got 1.5", {"dropout_p": 1.5, "seed": 1}),
    "negative dropout_p": ("dropout_p", "got -0.1", {"dropout_p": -0.1, "seed": 1}),
    "dropout_p nan": ("dropout_p", "got -?nan", {"dropout_p": np.nan, "seed": 1}),
    "dropout_p's type": ("number", "dropout_p must be a number", {"dropout_p": "1"}),
    "seed": ("seed", f"at most 64 bits, got {2**64}", {"dropout_p": 0.5, "seed": 2**64}),
    "seed's type": ("integer", "seed must be an integer, got float", {"seed": 1.0}),
    "two seeds": (
        TypeError,
        r"seed must be one integer, got an array of int64 of shape \(2,\)",
        {"seed": np.array([1, 2])},
    ),
    "a seed in an array": (
        TypeError,
        r"seed must be one integer, got an array of int32 of shape \(1,\)",
        {"seed": np.array([1], np.int32)},
    ),
    "a seed of truth": (
        TypeError,
        r"seed must be one integer, got an array of bool of shape \(\)",
        {"seed": np.array(True)},
    ),
    "three offsets": (
        "offsets",
        r"dropout_offset must be four integers, .*, got \(0, 0, 0\)",
        {"dropout_offset": (0, 0, 0)},
    ),
    "no offset": ("offsets", "four integers, .*, got None", {"dropout_offset": None}),
    "an offset": ("offsets", "dropout_offset must be four integers", {"dropout_offset": 3}),
    "an offset's type": (
        "integer",
        "dropout_offset must be an integer, got float",
        {"dropout_offset": [0, 0, 1.0, 0]},
    ),
    "a negative offset": (
        "dropout_offset",
        r"0 to 2\^32 - 1; one of them is -1",
        {"dropout_offset": (0, 0, -1, 0)},
    ),
    "a far offset": ("dropout_offset", f"is {2**32}", {"dropout_offset": (2**32, 0, 0, 0)}),
    "dropout of scores": (
        "materialised_dropout",
        'algorithm="safe" has no dropout',
        {"dropout_p": 0.5, "seed": 1, "algorithm": "safe"},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_attention(name):
    refuses_attention(*OPTIONS[name])


@pytest.mark.parametrize(
    "name", [n for n, (_, _, wrong) in OPTIONS.items() if not {"out", "return_lse"} & set(wrong)]
)
def test_explain_checks_the_same(name):
    refuses_explain(*OPTIONS[name])


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
