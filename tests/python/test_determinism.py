"""Rule 3.7 of the contract, sentence by sentence, bit for bit: a row's result is a function of its
own query, its visible keys and values with their positions, and the options; of nothing else. What
libraries its arrays are of: test_adapters.py, test_jax.py; modes of the machine: test_modes.py."""

import itertools

import compare
import ml_dtypes
import numpy as np
import pytest
from cases import Case

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
ROWS, KEYS = 150, 290
classes = pytest.mark.parametrize("rows", [4, ROWS], ids=["decode", "prefill"])


def problem(dtype, **changes):
    sizes = {"rows": ROWS, "keys": KEYS, "heads": (2, 4, 2, 4), "dims": (40, 33)}
    return Case(dtype, **sizes | {"where": "causal", "data": "growing"} | changes)


def run(arrays, **options):
    return fanano.attention(*arrays, return_lse=True, **{"is_causal": True} | options)


def same(a, b):
    """The same bits in out and in lse."""
    assert [x.shape for x in a] == [x.shape for x in b]
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def part(result, index):
    return tuple(x[index] for x in result)


@dtypes
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
def test_the_same_call_again(dtype, algorithm):
    arrays = problem(dtype).arrays()
    first = run(arrays, algorithm=algorithm)
    for _ in range(5):
        same(run(arrays, algorithm=algorithm), first)


@dtypes
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize("rows", [1, 16, 17, ROWS])
def test_threads(dtype, rows, algorithm, threads):
    arrays = problem(dtype, rows=rows).arrays()
    threads(1)
    alone = run(arrays, algorithm=algorithm)
    for n in 2, 3, 4:
        threads(n)
        same(run(arrays, algorithm=algorithm), alone)


@dtypes
@pytest.mark.parametrize("algorithm", ["naive", "safe", "online"])
def test_softmax(dtype, algorithm, threads):
    """Its rows by themselves, the other way round, and by any number of threads."""
    x = np.random.default_rng(0).normal(0, 5, (40, 1200)).astype(compare.DTYPES[dtype])
    threads(1)
    whole = fanano.softmax(x, algorithm=algorithm)
    for n in 2, 3, 4:
        threads(n)
        assert fanano.softmax(x, algorithm=algorithm).tobytes() == whole.tobytes()
    turned = fanano.softmax(np.ascontiguousarray(x.T), axis=0, algorithm=algorithm)
    assert turned.T.tobytes() == whole.tobytes()
    for row in 0, 17, 39:
        assert fanano.softmax(x[row], algorithm=algorithm).tobytes() == whole[row].tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_merging(dtype, threads):
    """The same of merge_states."""
    a, b = (run(problem(dtype, rows=300, data=data).arrays()) for data in ("normal", "growing"))
    threads(1)
    whole = fanano.merge_states(*a, *b)
    for n in 2, 3, 4:
        threads(n)
        same(fanano.merge_states(*a, *b), whole)
    for row in 0, 17, 299:
        one = np.s_[1, 2, row : row + 1]
        same(fanano.merge_states(*part(a, one), *part(b, one)), part(whole, one))


@dtypes
@pytest.mark.parametrize("rows", [1, 16, 17, ROWS])
def test_the_batch_and_the_other_heads(dtype, rows):
    q, k, v = problem(dtype, rows=rows).arrays()
    whole = run((q, k, v))
    for b in range(2):
        one = np.s_[b : b + 1]
        same(run((q[one], k[one], v[one])), part(whole, one))
        for h in range(4):
            g = h // 2
            alone = run((q[one, h : h + 1], k[one, g : g + 1], v[one, g : g + 1]))
            same(alone, part(whole, np.s_[one, h : h + 1]))


@dtypes
@pytest.mark.parametrize(
    "option", ["none", "slopes", "sinks", "bool", "added", "lengths", "all", "overflow"]
)
def test_what_each_head_has_for_itself(dtype, option, threads):
    """Where heads of a group pass their keys together: all of them, when there is one thread."""
    batch, heads, kv_heads, rows = 2, 24, 4, 70
    arrays = q, k, v = problem(dtype, rows=rows, heads=(batch, heads, kv_heads, 4)).arrays()
    if option == "overflow":  # of sums before they are normalised: such rows are made again
        v[...] = ml_dtypes.finfo(v.dtype).max
    rng = np.random.default_rng(1)
    of_heads = {
        "slopes": {"alibi_slopes": rng.uniform(-0.01, 0.03, (batch, heads))},
        "sinks": {"sinks": rng.normal(size=heads)},
        "bool": {"attn_mask": rng.random((batch, heads, rows, KEYS)) < 0.7},
        "added": {"attn_mask": rng.normal(size=(batch, heads, rows, KEYS)).astype(np.float32)},
        "lengths": {"q_lengths": np.array([9, 40]), "kv_lengths": np.array([KEYS, 201])},
    }
    of_heads["added"]["attn_mask"][:, :, 5] = -np.inf  # with sinks, these are all it sees
    of_heads["all"] = {name: x for choice in of_heads.values() for name, x in choice.items()}
    options = of_heads.get(option, {})
    threads(1)
    plan = fanano.explain(*arrays, is_causal=True, **options)
    assert plan.heads == heads // kv_heads
    whole = run(arrays, **options)
    for b, h in itertools.product(range(batch), range(heads)):
        one, key_head = (
            np.s_[b : b + 1, h : h + 1],
            np.s_[b : b + 1, h // plan.heads : h // plan.heads + 1],
        )
        axes = {"sinks": one[1], "q_lengths": one[0], "kv_lengths": one[0]}
        own = {name: x[axes.get(name, one)] for name, x in options.items()}
        same(run((q[one], k[key_head], v[key_head]), **own), part(whole, one))


@dtypes
@classes
def test_shared_key_heads_are_repeated_key_heads(dtype, rows):
    q, k, v = problem(dtype, rows=rows).arrays()
    same(run((q, k, v)), run((q, k.repeat(2, 1), v.repeat(2, 1))))


@dtypes
@classes
def test_other_rows(dtype, rows):
    q, k, v = problem(dtype, rows=rows).arrays()
    whole, row = run((q, k, v)), rows // 2 - 1
    other = q[:, :, ::-1].copy()
    other[:, :, row] = q[:, :, row]
    same(part(run((other, k, v)), np.s_[:, :, row]), part(whole, np.s_[:, :, row]))
    other[:, :, :row] = np.nan
    other[:, :, row + 1 :] = 1e4
    same(part(run((other, k, v)), np.s_[:, :, row]), part(whole, np.s_[:, :, row]))


@dtypes
@pytest.mark.parametrize("window", [None, (130, 5), (20, -1)])
@pytest.mark.parametrize("chunks", [(17, 133), (100, 50), (33, 64, 53), (18, 19, 20, 21, 72)])
def test_how_a_prefill_is_cut(dtype, chunks, window):
    """Into chunks of more than 16 rows, each at its own offset. Windows begin in other tiles for
    each: those stand where they stand, not where a window or a chunk begins."""
    q, k, v = problem(dtype).arrays()
    options = {"is_causal": False, "window_size": window} if window else {}
    whole = run((q, k, v), **options)
    begin = 0
    for rows in chunks:
        chunk = np.s_[:, :, begin : begin + rows]
        here = run((q[chunk], k, v), q_offset=KEYS - ROWS + begin, **options)
        same(here, part(whole, chunk))
        begin += rows
    assert begin == ROWS


@dtypes
@pytest.mark.parametrize("hidden", [None, np.nan, np.inf])
def test_long_rows_for_many_and_for_few(dtype, hidden):
    """Values are regrouped for many rows, and stay where they are for few. The last key is hidden
    from all rows but the last."""
    q, k, v = problem(dtype, dims=(64, 131)).arrays()
    others, few = np.s_[:, :, :-1], np.s_[:, :, 40:57]
    clean = run((q, k, v))
    if hidden is not None:
        k[:, :, -1] = v[:, :, -1] = hidden
    whole = run((q, k, v))
    same(part(whole, others), part(clean, others))
    same(run((q[few], k, v), q_offset=KEYS - ROWS + 40), part(whole, few))


@dtypes
def test_how_a_decode_is_cut(dtype):
    """16 queries at once, or one by one."""
    q, k, v = problem(dtype, rows=16).arrays()
    whole = run((q, k, v))
    for i in range(16):
        one = np.s_[:, :, i : i + 1]
        same(run((q[one], k, v), q_offset=KEYS - 16 + i), part(whole, one))


@dtypes
@classes
@pytest.mark.parametrize("garbage", [0, 1e4, np.nan, np.inf])
def test_padding(dtype, rows, garbage):
    """Its length and what stands in it."""
    q, k, v = problem(dtype, rows=rows).arrays()
    used = rows * 2 // 5
    lengths = {"q_lengths": [rows, used], "kv_lengths": [KEYS, 201]}
    whole = run((q, k, v), **lengths)
    short = run((q[1:, :, :used], k[1:, :, :201], v[1:, :, :201]))
    same(part(whole, np.s_[1:, :, :used]), short)
    q[1, :, used:] = k[1, :, 201:] = v[1, :, 201:] = garbage
    same(run((q, k, v), **lengths), whole)
    longer = [np.pad(x, ((0, 0), (0, 0), (0, 37), (0, 0)), constant_values=7) for x in (q, k, v)]
    same(part(run(longer, **lengths), np.s_[:, :, :rows]), whole)


@dtypes
@classes
def test_keys_that_no_row_visits(dtype, rows):
    """Behind the last row's last, and before the first row's first, whole tiles of them."""
    q, k, v = problem(dtype, rows=rows, keys=700).arrays()
    options = {"q_offset": 400, "window_size": (130, 0)}
    whole = run((q, k, v), **options)
    seen = np.s_[:, :, : rows + 400]
    same(run((q, k[seen], v[seen]), **options), whole)
    k[:, :, rows + 400 :] = v[:, :, rows + 400 :] = np.nan
    k[:, :, :270] = v[:, :, :270] = np.nan
    same(run((q, k, v), **options), whole)


@dtypes
@classes
@pytest.mark.parametrize("strides", ["odd rows", "negative", "columns"])
def test_strides(dtype, rows, strides):
    arrays = problem(dtype, rows=rows).arrays()
    moved = []
    for x in arrays:
        if strides == "odd rows":
            room = np.full((*x.shape[:-1], x.shape[-1] + 3), 9, x.dtype)[..., 1:-2]
        elif strides == "negative":
            room = np.full_like(x, 9)[::-1, ::-1, ::-1, ::-1]
        else:
            room = np.full((*x.shape, 3), 9, x.dtype)[..., 1]
        room[...] = x
        moved.append(room)
    same(run(moved), run(arrays))


@dtypes
@classes
def test_broadcast_inputs(dtype, rows):
    arrays = problem(dtype, rows=rows).arrays()
    views = [np.broadcast_to(x[:1, :1], x.shape) for x in arrays]
    same(run(views), run([x.copy() for x in views]))


@dtypes
@classes
def test_layout(dtype, rows):
    arrays = problem(dtype, rows=rows).arrays()
    out, lse = run(arrays)
    swapped, lse_too = run([np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays], layout="bshd")
    same((swapped.swapaxes(1, 2), lse_too), (out, lse))


@dtypes
@classes
def test_rank(dtype, rows):
    q, k, v = problem(dtype, rows=rows).arrays()
    whole = run((q, k, v))
    same(run((q[1], k[1], v[1])), part(whole, 1))
    same(run((q[1, 3], k[1, 1], v[1, 1])), part(whole, (1, 3)))


@dtypes
@classes
@pytest.mark.parametrize("shift", [1, 3, 7])
def test_alignment(dtype, rows, shift):
    arrays = problem(dtype, rows=rows).arrays()
    moved = []
    for x in arrays:
        buffer = np.zeros(x.size + shift, x.dtype)
        moved.append(buffer[shift:].reshape(x.shape))
        moved[-1][...] = x
    whole = run(arrays)
    same(run(moved), whole)
    room = np.zeros(whole[0].size + shift, whole[0].dtype)[shift:].reshape(whole[0].shape)
    same(run(moved, out=room), whole)
