"""Dropout, forward and backward: rule 3.8 of the contract. The mask is compared bit by bit with the
definition, results and gradients by the judgement of compare.py."""

import compare
import numpy as np
import pytest
from cases import Case
from oracle_dropout import keep, philox

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
SEED = 0x0123456789ABCDEF

# Decode and prefill, more than one tile, strip and block; heads that share keys; odd sizes.
SIZES = [
    {"rows": 5, "keys": 131, "heads": (2, 4, 2, 4), "dims": (16, 9)},
    {"rows": 16, "keys": 1300, "heads": (1, 2, 1, 4), "dims": (24, 16)},
    {"rows": 97, "keys": 257, "heads": (2, 2, 1, 4), "dims": (33, 24)},
    {"rows": 300, "keys": 140, "heads": (1, 4, 2, 4), "dims": (8, 40)},
]
OPTIONS = [
    {"where": "causal", "data": "growing"},
    {"where": "causal", "data": "partly hidden", "mask": "bool (B, 1, Sq, Sk)"},
    {"mask": "float32 (Sq, Sk)", "softcap": 3.0, "sinks": True, "layout": "bshd"},
    {"lengths": "both", "window": (40, 9), "slopes": "heads", "strides": "columns"},
]


def run(arrays, dout=None, dlse=None, dropout=None, **options):
    """out, lse, and the gradients where there is a dout."""
    options |= dropout or {}
    out, lse = fanano.attention(*arrays, return_lse=True, **options)
    if dout is None:
        return out, lse
    mask = options.get("attn_mask")
    of_mask = mask is not None and mask.dtype != bool
    return out, lse, fanano.attention_backward(
        dout.astype(out.dtype), *arrays, out, lse, dlse=dlse, grad_mask=of_mask, **options
    )  # fmt: skip


def same(a, b):
    assert [x.shape for x in a] == [x.shape for x in b]
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def test_the_oracle_knows_the_published_answers():
    pi = 0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344
    for counter, key, words in (
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (pi, 0x299F31D0A4093822, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ):
        assert tuple(map(int, philox(counter, key))) == words


def shown(shape, dtype="float32", **dropout):
    """The mask as attention shows it: equal scores, and a value of its own for every key."""
    batch, heads, rows, keys = shape
    q = np.zeros((batch, heads, rows, 1), compare.DTYPES[dtype])
    k = np.zeros((batch, heads, keys, 1), q.dtype)
    v = np.broadcast_to(np.eye(keys, dtype=q.dtype), (batch, heads, keys, keys))
    return fanano.attention(q, k, v, **dropout) != 0


def test_the_golden_vector():
    """What every device, now and later, must drop: 2 rows of 2 heads, 12 keys, in hexadecimal."""
    mask = shown((1, 2, 2, 12), dropout_p=0.5, seed=SEED, dropout_offset=(3, 1, 40, 6))
    words = ["".join("01"[int(x)] for x in row) for row in mask.reshape(4, 12)]
    assert [f"{int(word, 2):03x}" for word in words] == GOLDEN


GOLDEN = ["191", "983", "22d", "6e4"]


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 66, 130])
@pytest.mark.parametrize("keys", [1, 5, 131, 300])
def test_the_mask(rows, keys):
    for dropout_p, seed, offset in (
        (0.3, SEED, (0, 0, 0, 0)),
        (0.9, -1, (7, 2**32 - 3, 2**32 - 40, 2)),
        (2**-20, 2**64 - 5, (2**31, 0, 1, 129)),
    ):
        dropout = {"dropout_p": dropout_p, "seed": seed, "dropout_offset": offset}
        expected = keep((2, 3, rows, keys), **dropout)
        assert (shown(expected.shape, **dropout) == expected).all()


@dtypes
def test_half_of_it_and_all_of_it(dtype):
    """Kept probabilities are multiplied by 1 / (1 - p); lse is that of no dropout."""
    arrays = Case(dtype, rows=70, keys=200, dims=(16, 8)).arrays()
    plain = run(arrays)
    none, half, all_ = (run(arrays, dropout={"dropout_p": p, "seed": 1}) for p in (0, 0.5, 1))
    same(none, plain)
    assert half[1].tobytes() == all_[1].tobytes() == plain[1].tobytes()
    assert (all_[0] == 0).all()
    assert (half[0] != plain[0]).any()
    mean = shown((1, 4, 64, 512), dropout_p=0.25, seed=3).mean()
    assert abs(mean - 0.75) < 0.01


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@dtypes
def test_as_close_as_plain(dtype, sizes, options):
    case = Case(dtype, **sizes | options)
    shape = (*case.heads[:2], case.rows, case.keys)
    outputs, gradients = compare.Judgement(str(case)), compare.GradientJudgement(str(case))
    for dropout_p, draw in ((0.1, 0), (0.6, 1)):
        arrays, (dout, dlse) = case.arrays(draw), case.upstream(draw)
        dropout = {"dropout_p": dropout_p, "seed": draw + SEED}
        judged = case.options | {"dropout_p": dropout_p, "keep": keep(shape, **dropout)}
        out, lse, found = run(arrays, dout, dlse, dropout, **case.options)
        outputs.add(out, lse, *arrays, **judged)
        gradients.add(found, *arrays, dout, dlse=dlse, **judged)
    outputs.verdict()
    gradients.verdict()


@pytest.mark.parametrize("rows", [8, 150])
@dtypes
def test_a_part_is_a_part(dtype, rows, threads):
    """Whatever piece of a problem a call computes, and on however many threads."""
    case = Case(dtype, rows=rows, keys=290, heads=(2, 4, 2, 4), dims=(40, 33))
    q, k, v = case.arrays()
    dropout = {"dropout_p": 0.3, "seed": SEED}
    threads(1)
    out, lse = run((q, k, v), dropout=dropout)
    dout = case.upstream()[0]
    gradients = run((q, k, v), dout, dropout=dropout)[2]
    for n in 2, 3:
        threads(n)
        same(run((q, k, v), dropout=dropout), (out, lse))
        same(run((q, k, v), dout, dropout=dropout)[2][:3], gradients[:3])

    def at(offset, *arrays):
        return run(arrays, dropout=dropout | {"dropout_offset": offset})

    same(at((1, 0, 0, 0), q[1:], k[1:], v[1:]), (out[1:], lse[1:]))
    same(at((0, 2, 0, 0), q[:, 2:], k[:, 1:], v[:, 1:]), (out[:, 2:], lse[:, 2:]))
    cut = 3 if rows == 8 else 70  # both pieces of one kernel class
    offset = {"q_offset": k.shape[2] - rows}
    first = run((q[:, :, :cut], k, v), dropout=dropout, **offset)
    moved = dropout | {"dropout_offset": (0, 0, cut, 0)}
    rest = run((q[:, :, cut:], k, v), dropout=moved, **offset)
    same([np.concatenate(x, 2) for x in zip(first, rest, strict=True)], (out, lse))


@pytest.mark.parametrize("cut", [128, 77])
def test_keys_apart(cut):
    """Parts of the keys merge to the whole, up to rounding, where each knows its own columns."""
    q, k, v = Case("float64", rows=40, keys=200, dims=(16, 8)).arrays()
    parts = [
        run(
            (q, k[:, :, part], v[:, :, part]),
            dropout={"dropout_p": 0.4, "seed": 5, "dropout_offset": (0, 0, 0, part.start)},
        )
        for part in (slice(0, cut), slice(cut, 200))
    ]
    merged = fanano.merge_states(*parts[0], *parts[1])
    whole = run((q, k, v), dropout={"dropout_p": 0.4, "seed": 5})
    for x, y in zip(merged, whole, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-13)


def test_seeds():
    arrays = Case("float32", rows=20, keys=50).arrays()

    def out(seed):
        return fanano.attention(*arrays, dropout_p=0.5, seed=seed).tobytes()

    for like in (-3, np.int64(-3), np.array(-3, np.int32), np.uint64(2**64 - 3)):
        assert out(like) == out(2**64 - 3)
    assert len({out(seed) for seed in (0, 1, 2**32, 2**63, -1)}) == 5
    assert out(None) != out(None)
    with pytest.raises(ValueError, match=r"dropout_p is 0.5, so seed must be given"):
        fanano.attention_backward(
            arrays[0], *arrays, arrays[0], np.zeros((1, 2, 20), np.float32), dropout_p=0.5
        )
