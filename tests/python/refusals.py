"""What the tests of errors share: the core's table of refusals, a call without a mistake, and how a
call with one is refused."""

import builtins
import re

import numpy as np
import pytest

import fanano
from fanano import _core

# The rows of cpp/refusals.hpp: id -> (exception, words with blanks).
ROWS = {id: (getattr(builtins, error), words) for id, error, words in _core.refusals()}

# What may stand in a blank; in any other, something.
BLANKS = {
    **dict.fromkeys(("argument", "other"), r"\w+"),
    **dict.fromkeys(("shape", "strides"), r"\((-?\d+,|-?\d+(, -?\d+)+|)\)"),
    **dict.fromkeys(
        ("axis", "bytes", "count", "index", "least", "most", "number", "version"),
        r"-?(\d+(\.\d+)?|inf|nan)",
    ),
    "type": r"[\w.]+",
}

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


def misaligned(*shape):
    return np.frombuffer(bytearray(4 * int(np.prod(shape)) + 1), np.float32, offset=1).reshape(
        shape
    )


def says(words, text):
    """Whether a text is these words of the table, with something fitting in each blank."""
    parts = re.split(r"\{(\w+)\}", words)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = (f"({BLANKS.get(blank, '.+')})" for blank in parts[1::2])
    return re.fullmatch("".join(parts), text) is not None


def refuses(call, rule, message):
    """The call breaks a rule: one of the core's, by the id of its row, and the error is the row's;
    or one that Python's side knows, by the exception, and no row says the same."""
    exception, words = ROWS[rule] if isinstance(rule, str) else (rule, None)
    with pytest.raises(exception, match=message) as caught:
        call()
    assert caught.type is exception
    text = str(caught.value)
    if words is not None:
        assert says(words, text)
    else:
        assert not [id for id, (_, words) in ROWS.items() if says(words, text)]


def refuses_attention(rule, message, wrong):
    """attention refuses a good call with this wrong in it, before it writes anything."""
    arguments = good() | wrong
    refuses(lambda: fanano.attention(**arguments), rule, message)
    if "out" not in wrong:
        assert (arguments["out"] == SENTINEL).all()


def refuses_explain(rule, message, wrong):
    """explain refuses it in the same words."""
    arguments = good() | wrong
    del arguments["out"]
    refuses(lambda: fanano.explain(**arguments), rule, message)
