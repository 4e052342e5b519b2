"""Bytes into calls of fanano: which function, on which arrays, with which options."""

from dataclasses import dataclass, field

import hostile
import numpy as np
from hostile import FLOATS, INT32, INT64, Arena, Drawn, Undefendable

KINDS = (
    *("attention", "softmax", "absorb", "merge_states", "explain", "shapes"),
    "attention_backward",
)


class Mischief(Exception):
    """What a caller's own object raises; it may come out of a call."""


class Raises:
    def __index__(self):
        raise Mischief

    __float__ = __bool__ = __index__


class Empties(list):
    """A list that is empty once the first of its elements has been converted, or longer."""

    class Element:
        def __init__(self, owner, grows):
            self.owner, self.grows = owner, grows

        def __index__(self):
            owner, self.owner = self.owner, []
            if self.grows:
                owner.extend([1] * 5)
            else:
                owner.clear()
            return 1

        def __float__(self):
            return float(self.__index__())

    def __init__(self, size, grows):
        super().__init__([self.Element(self, grows), *[1] * (size - 1)] if size else [])


class NoLoan:
    """Has __dlpack__ by name."""

    def __init__(self, error):
        self.error = error

    def __dlpack__(self, **_):
        raise self.error("no loan")

    def __dlpack_device__(self):
        return 1, 0


# Called anew each time: some change.
THINGS = (
    lambda: None, lambda: 3, lambda: -1, lambda: 2.5, lambda: "x", lambda: [1.0], lambda: (),
    lambda: object(), lambda: np.float32(1), lambda: True, lambda: 2**63, lambda: 10**400,
    lambda: b"12345678", lambda: {}, lambda: np, lambda: np.ndarray, lambda: Raises(),
    lambda: [[1], 2], lambda: [[1.0, 2.0], [3.0]], lambda: [[]], lambda: float("nan"),
    lambda: NoLoan(BufferError), lambda: NoLoan(MemoryError), lambda: Counted, lambda: "\ud800",
    lambda: np.ma.ones((2, 2, 3, 8)), lambda: [Raises()], lambda: complex(1, 2),
)  # fmt: skip
Counted = hostile.Counted


@dataclass
class Call:
    kind: str
    arguments: dict = field(default_factory=dict)  # by name, as they are given
    drawn: dict = field(default_factory=dict)  # those that are arrays, by name
    mischief: bool = False  # some argument raises on its own

    def add(self, name, drawn):
        self.arguments[name] = drawn.given
        self.drawn[name] = drawn

    def thing(self, choices, name):
        """An argument that is not what it should be."""
        given = choices.of(*THINGS)()
        self.arguments[name] = given
        self.mischief |= isinstance(given, (Raises, list, NoLoan))


def read_call(choices, sanitized):
    """The call that these bytes are. Raises Undefendable."""
    Arena.used = 0
    call = Call(choices.of(*KINDS))
    library = choices.of("numpy", "lender")
    # The sanitizers end the process where memory ends, instead of raising.
    huge = hostile.BIG if sanitized else 2**50
    make = {
        "softmax": softmax, "absorb": absorb, "merge_states": merge, "shapes": shapes,
        "attention_backward": backward,
    }  # fmt: skip
    make.get(call.kind, attention)(choices, call, library, huge)
    computed = ("query", "key", "value", "scores", "dout", "lse")
    if call.kind in ("attention", "attention_backward", "absorb") and any(
        call.drawn[name].endless for name in computed if name in call.drawn
    ):
        raise Undefendable  # would be computed, for years
    return call


def array(choices, call, name, shape, dtypes, library, huge=2**50, **more):
    if choices.byte() >= 250:
        return call.thing(choices, name)
    call.add(name, hostile.draw(choices, shape, dtypes, library, huge, **more))


def first(dtype, among=FLOATS):
    return (dtype, *(d for d in among if d != dtype))


def softmax(choices, call, library, huge):
    shape = [choices.often(n, 0, 1, 7, 65) for n in (3, 5, 17)]
    array(choices, call, "x", shape, first(choices.of(*FLOATS)), library, huge)
    call.arguments["axis"] = choices.often(-1, 0, 1, -3, 3, -4, 2**62, 2**70, 1.0, None)
    call.arguments["algorithm"] = choices.often(
        "online", "safe", "naive", "flash", "", 3, None, "\ud800"
    )


def absorb(choices, call, library, huge):
    size = choices.often(5, 0, 1, 64, 300)
    array(choices, call, "scores", [size], first(choices.of(*FLOATS)), library, huge)


def merge(choices, call, library, huge):
    dtype = choices.of(*FLOATS)
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    shape = [choices.often(n, 0, 1, 9) for n in (2, 3, 4)][choices.often(0, 1, 2) :]
    for name in ("out_a", "lse_a", "out_b", "lse_b"):
        inner = shape[:-1] if name.startswith("lse") else shape
        dtypes = first(wide if name.startswith("lse") else dtype)
        array(choices, call, name, inner, dtypes, library, huge)


def sizes(choices):
    batch = choices.often(2, 1, 0, 3)
    kv_heads = choices.often(1, 2, 0, 3)
    heads = kv_heads * choices.often(2, 1, 3) + choices.often(0, 1)
    rows, keys = choices.often(3, 0, 1, 8, 17, 33), choices.often(5, 0, 1, 2, 16, 65, 129)
    dim, value_dim = choices.often(8, 1, 7, 33, 0), choices.often(4, 0, 1, 9, 33)
    return batch, heads, kv_heads, rows, keys, dim, value_dim


def inputs(choices, call, library, huge):
    """query, key, value and the options; of them sizes, dtype, and what makes shapes of a rank."""
    batch, heads, kv_heads, rows, keys, dim, value_dim = sizes(choices)
    rank, layout = choices.often(4, 3, 2), choices.often("bhsd", "bshd")
    dtype = choices.of(*FLOATS)
    kind = choices.often("normal", "NaN", "ones")

    def ranked(batch, heads, rows, columns):
        rows_first = layout == "bshd" and rank > 2
        shape = [batch, rows, heads, columns] if rows_first else [batch, heads, rows, columns]
        return shape[4 - rank :]

    if rank < 4:
        batch = 1
    if rank < 3:
        heads = kv_heads = 1
    shapes = {
        "query": ranked(batch, heads, rows, dim),
        "key": ranked(batch, kv_heads, keys, dim),
        "value": ranked(batch, kv_heads, keys, value_dim),
    }
    for name, shape in shapes.items():
        array(choices, call, name, shape, first(dtype), library, huge, kind=kind)
    call.arguments["layout"] = choices.often(layout, "bshd", "bhsd", "sbhd", 1, None, "bhsd\0")
    options(choices, call, library, (batch, heads, rows, keys))
    return (batch, heads, rows, value_dim), dtype, ranked


def backward(choices, call, library, huge):
    shape, dtype, ranked = inputs(choices, call, library, huge)
    for name in "algorithm", "out_dtype":
        call.arguments.pop(name, None)
    wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    rank = len(ranked(*shape))
    for name in "dout", "out":
        array(choices, call, name, ranked(*shape), first(dtype), library, huge)
    for name in "lse", "dlse":
        if name == "lse" or choices.byte() >= 192:
            array(choices, call, name, shape[4 - rank : 3], first(wide), library, huge)
    call.arguments["grad_mask"] = choices.often(False, True, True, None, 1)


def attention(choices, call, library, huge):
    shape, dtype, ranked = inputs(choices, call, library, huge)
    if call.kind == "explain":
        return
    call.arguments["return_lse"] = choices.often(False, True, True, None, 1, np.True_)
    where = choices.of("new", "none", "query", "value")
    if where != "none":
        owner = call.drawn.get(where)
        arena = owner.arena if owner else None
        array(choices, call, "out", ranked(*shape), first(dtype), library, huge, arena=arena)


def options(choices, call, library, shape):
    batch, heads, rows, keys = shape
    given = call.arguments

    def option(name, *values):
        value = choices.often("default", *values, Raises)
        if isinstance(value, str) and value == "default":
            return
        if value is Raises:
            return call.thing(choices, name)
        given[name] = value() if callable(value) else value

    algorithms = ("flash", "safe", "online", "naive", "fast", None)
    option("algorithm", *algorithms[:4], *algorithms)
    option("is_causal", True, True, np.True_, 1)
    option("scale", 0.5, -1.0, 0, 1e-40, 1e30, float("nan"), float("inf"), np.float32(2), "1")
    option("softcap", 0.7, 40.0, 0, 1e-30, -2, float("inf"), float("nan"))
    far = 2**63 - 1
    option("window_size", (0, 0), (3, None), [None, 2], (-1, far), (far, far), (-(2**63), 0),
           (1, 2, 3), (1.0, 2), 4, lambda: Empties(2, False), lambda: Empties(2, True))  # fmt: skip
    option("out_dtype", "float32", "float32", "float64", np.float32, np.dtype("f2"), float, "half",
           3, {}, [("a", "f4")])  # fmt: skip
    option("dropout_p", 0.3, 0, 1, 1e-12, -0.5, 2, float("nan"), "1")
    option("seed", 7, -1, 2**64 - 1, 2**64, 1.5, lambda: Empties(2, True))
    option("dropout_offset", (0, 0, 0, 1), (3, 2, 1, 2**32 - 1), [0], (0, 0, -1, 0), 4,
           lambda: Empties(4, True))  # fmt: skip
    for name, longest in ("q_offset", keys), ("q_lengths", rows), ("kv_lengths", keys):
        how = choices.often("default", "one", "list", "array", "array", "changes", "thing")
        if how == "one":
            given[name] = choices.of(1, 0, longest, longest + 1, -1, far, -(2**63), 2**63, True)
        elif how == "list":
            given[name] = [choices.of(0, 1, longest, -1, far) for _ in range(batch)]
            if choices.byte() >= 224:
                given[name].append(choices.of(0, 2**63, 1.0))
        elif how == "array":
            array(choices, call, name, [batch], (INT64, INT32), library, kind="small")
            draw_integers(choices, call.drawn.get(name), longest)
        elif how == "changes":
            given[name] = Empties(batch, choices.of(True, False))
        elif how == "thing":
            call.thing(choices, name)
    for name in "alibi_slopes", "sinks":
        how = choices.often(
            "default", "one", "list", "lists", "array", "arrays", "changes", "thing"
        )
        if how == "one":
            given[name] = choices.of(
                0.5, 0, -1e4, 1e300, -1e300, 1.7e308, float("nan"), float("-inf"), 10**400
            )
        elif how == "list":
            given[name] = [choices.of(0.5, 0, -3.0, float("-inf"), 7) for _ in range(heads)]
        elif how == "lists":
            given[name] = [[0.25] * heads for _ in range(batch)]
            if batch and choices.byte() >= 192:
                given[name][0] = choices.of(1, [], [1, "2"], Empties(heads, True))
        elif how == "changes":
            inner = choices.of(False, True)
            changing = Empties(heads, choices.of(False, True))
            given[name] = [changing for _ in range(batch)] if inner else changing
        elif how == "thing":
            call.thing(choices, name)
        elif how != "default":
            axes = [heads] if how == "array" else [batch, heads]
            array(choices, call, name, axes, FLOATS, library)
    how = choices.often("default", "full", "row", "column", "thing")
    if how == "thing":
        call.thing(choices, "attn_mask")
    elif how != "default":
        full = [batch, heads, rows, keys]
        axes = {"full": full, "row": [keys], "column": [rows, 1]}[how]
        kind = choices.of("normal", "hidden", "NaN", "nothing")
        types = (hostile.BOOL, *FLOATS)
        array(
            choices, call, "attn_mask", axes, first(choices.of(*types), types), library, kind=kind
        )


def draw_integers(choices, drawn, longest):
    """Puts numbers into an array of lengths or offsets, most of which may stand there."""
    if drawn is None or drawn.view is None or not drawn.view.flags.writeable:
        return
    many = drawn.view.size if drawn.view.size <= 8 else 0
    values = [choices.often(0, 1, longest, longest + 1, -1, 2**31 - 1) for _ in range(many)]
    if many and drawn.view.dtype in (INT32, INT64):
        drawn.arena.fill(drawn.view, np.reshape(values, drawn.view.shape))


def shapes(choices, call, library, huge):
    """Plans of shapes alone: the module's own function, which the command line uses."""
    batch, heads, kv_heads, rows, keys, dim, value_dim = sizes(choices)
    sides = {
        "query": [batch, heads, rows, dim],
        "key": [batch, kv_heads, keys, dim],
        "value": [batch, kv_heads, keys, value_dim],
    }
    for name, shape in sides.items():
        changed = hostile.changed_shape(choices, shape, huge)
        call.arguments[name] = choices.of(tuple, list)(changed)
        if choices.byte() >= 250:
            call.thing(choices, name)
    call.arguments["dtype"] = choices.often("float32", "float64", "bfloat16", "float16", "bool", 3)
    options(choices, call, library, (batch, heads, rows, keys))


__all__ = ["Call", "Drawn", "Mischief", "read_call"]
