"""Laws that hold for all inputs, drawn by hypothesis over the whole contract: within the one
judgement of closeness, or bit for bit where rule 3.7 says so."""

import cases
import compare
import numpy as np
import oracle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracle_gradients import shared_axes

import fanano

pytestmark = pytest.mark.thorough

scores = st.lists(st.one_of(st.floats(-700, 700), st.just(-np.inf)), max_size=20)
dtypes = st.sampled_from(list(compare.DTYPES))


def state(numbers):
    return fanano.SoftmaxState().absorb(np.array(numbers, np.float64))


def same(a, b):
    return a.lse == b.lse or a.lse == pytest.approx(b.lse, rel=1e-13, abs=1e-13)


@given(scores, scores, scores)
def test_merge_is_associative_and_commutative(x, y, z):
    a, b, c = state(x), state(y), state(z)
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(b).merge(c), state(x + y + z))


@given(dtypes, st.integers(1, 300), st.integers(1, 6), st.floats(-50, 50))
def test_softmax_does_not_change_when_all_scores_move(dtype, n, rows, shift):
    """Exactly representable shifts: whole numbers added to whole numbers."""
    x = np.random.default_rng(n).integers(-20, 20, (rows, n)).astype(compare.DTYPES[dtype])
    for algorithm in "safe", "online":
        moved = (x + np.round(shift)).astype(x.dtype)
        before, after = (fanano.softmax(a, algorithm=algorithm).astype(float) for a in (x, moved))
        np.testing.assert_allclose(before, after, rtol=4 * compare.ulp(1.0, x.dtype))


# ---- any problem ---------------------------------------------------------------------------------


@st.composite
def problems(draw, **limits):
    # Not a strategy for each choice: then hypothesis makes five problems of six by copying one
    # choice of the last problem to another.
    return cases.drawn(draw(st.randoms(use_true_random=False)), **limits)


def attend(case, arrays, options):
    """Output and lse, of arrays of any rank."""
    own = {"algorithm": case.algorithm, "out_dtype": case.out_dtype, "return_lse": True}
    return fanano.attention(*arrays, **own | options)


def spelled_out(case, draw=0):
    """The arrays as (batch, heads, rows, columns) and the options with nothing left to a default or
    to broadcasting, so that a part of the problem is a part of each."""
    batch, heads = case.heads[:2]
    options = {k: x for k, x in case.options.items() if k != "layout"}
    for name, length in ("q_lengths", case.rows), ("kv_lengths", case.keys):
        options[name] = np.broadcast_to(options.get(name, length), batch)
    lower_right = options["kv_lengths"] - options["q_lengths"]
    options["q_offset"] = np.broadcast_to(options.get("q_offset", lower_right), batch)
    shapes = {"attn_mask": (batch, heads, case.rows, case.keys), "alibi_slopes": (batch, heads)}
    for name in shapes.keys() & options.keys():
        options[name] = np.broadcast_to(options[name], shapes[name])
    return [oracle.four_dims(x, case.layout) for x in case.arrays(draw)], options


@given(problems(empty=True))
def test_any_problem(case):
    judgement = compare.Judgement(str(case))
    for draw in range(case.draws):
        arrays = case.arrays(draw)
        out, lse = attend(case, arrays, case.options)
        judgement.add(out, lse, *arrays, out_dtype=case.out_dtype, **case.options)
    judgement.verdict()


@given(problems(empty=True), st.floats(0, 1), st.booleans())
def test_splitting_the_keys_anywhere(case, cut, sink_first):
    """Partial results over two stretches of the keys merge to the whole; one of them has the
    sink."""
    # An lse is rounded: beside capped logits, which plain has exactly, that shows.
    assume(not (case.softcap and case.data.startswith("logits")))
    cut = round(cut * case.keys)
    out_dtype = None if case.dtype == "float64" else "float32"
    judgement = compare.Judgement(f"{case} cut at {cut}")
    for draw in range(case.draws):
        (q, k, v), options = spelled_out(case, draw)
        parts = []
        for begin, end, has_sink in (0, cut, sink_first), (cut, case.keys, not sink_first):
            here = options | {"out_dtype": out_dtype, "q_offset": options["q_offset"] - begin}
            here["kv_lengths"] = np.clip(options["kv_lengths"] - begin, 0, end - begin)
            if "attn_mask" in options:
                here["attn_mask"] = options["attn_mask"][..., begin:end]
            if not has_sink:
                here.pop("sinks", None)
            parts += attend(case, (q, k[:, :, begin:end], v[:, :, begin:end]), here)
        judgement.add(*fanano.merge_states(*parts), q, k, v, out_dtype=out_dtype, **options)
    judgement.verdict()


@given(problems(positions=False), st.randoms(use_true_random=False))
def test_permuting_the_keys(case, random):
    """Without a mask that knows positions, the order of the keys is nobody's business."""
    order = list(range(case.keys))
    random.shuffle(order)
    judgement = compare.Judgement(str(case))
    for draw in range(case.draws):
        (q, k, v), options = spelled_out(case, draw)
        moved = dict(options)
        if "attn_mask" in options:
            moved["attn_mask"] = options["attn_mask"][..., order]
        out, lse = attend(case, (q, k[:, :, order], v[:, :, order]), moved)
        judgement.add(out, lse, q, k, v, out_dtype=case.out_dtype, **options)
    judgement.verdict()


# ---- bit for bit ---------------------------------------------------------------------------------

POSITIONS = "is_causal", "window_size", "q_offset", "q_lengths", "kv_lengths"


def same_bits(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def by_itself(case, arrays, options, b, h, rows):
    """Output and lse of a stretch of one head's rows, when it is all there is: no batch, no other
    heads and rows, no padding, no keys behind the last that is seen, no strides."""
    q, k, v = arrays
    seen = case.visible((*q.shape[:3], case.keys))[b, h, rows].any(0)
    keys = slice(int(np.flatnonzero(seen).max(initial=-1)) + 1)
    parts = {"attn_mask": np.s_[b, h, rows, keys], "alibi_slopes": np.s_[b, h : h + 1]}
    parts |= {"sinks": np.s_[h : h + 1], "q_offset": b}
    here = {name: x[parts[name]] if name in parts else x for name, x in options.items()}
    here["q_offset"] += rows.start
    del here["q_lengths"], here["kv_lengths"]
    g = h // (q.shape[1] // k.shape[1])
    alone = q[b, h, rows], k[b, g, keys], v[b, g, keys]
    return attend(case, map(np.ascontiguousarray, alone), here)


@given(problems(), st.randoms(use_true_random=False))
def test_rows_by_themselves(case, random):
    """A row's bits say nothing of what else was computed with it."""
    out, lse = attend(case, case.arrays(), case.options)
    out = oracle.four_dims(out, case.layout)
    lse = lse.reshape(out.shape[:3])
    arrays, options = spelled_out(case)
    for b, h in np.ndindex(out.shape[:2]):
        # As many rows as keep the kernel's class: up to 16 are a decode, more a prefill.
        used = int(options["q_lengths"][b])
        least = 17 if used > 16 else 0
        begin = random.randint(0, used - least)
        rows = slice(begin, random.randint(begin + least, used))
        alone = by_itself(case, arrays, options, b, h, rows)
        assert same_bits(alone, (out[b, h, rows], lse[b, h, rows])), (b, h, rows)


@given(problems(rows=(60, 150)))
def test_threads(case):
    before, arrays, results = fanano.get_num_threads(), case.arrays(), []
    try:
        for n in 1, 2, 3:
            fanano.set_num_threads(n)
            results.append(attend(case, arrays, case.options))
    finally:
        fanano.set_num_threads(before)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@given(problems(data=("hidden", "partly hidden")))
def test_what_is_hidden_changes_no_bit(case):
    """NaN, infinities and huge numbers: in keys that a row may not see, in rows that see nothing,
    and in a mask, where lengths and positions hide all that an element is for."""
    (q, k, v), options = spelled_out(case)
    shape = (*q.shape[:3], case.keys)
    may = case.visible(shape)
    largest = float(compare.ml_dtypes.finfo(q.dtype).max)
    clean = [np.where(abs(x.astype(float)) < largest, x, 0).astype(x.dtype) for x in (k, v)]
    before = attend(case, (q, *clean), options)

    q[~may.any(-1)] = np.nan
    mask = case.options.get("attn_mask")
    if mask is not None and mask.dtype != bool:
        looked_at = oracle.visible(shape, **{x: options[x] for x in POSITIONS if x in options})
        nan = np.array(np.nan, mask.dtype)
        options["attn_mask"] = np.where(shared_axes(looked_at, mask.shape, np.any), mask, nan)
    after = attend(case, (q, k, v), options)
    garbage = (k != clean[0]).any(-1) | (v != clean[1]).any(-1)
    garbage = garbage.repeat(q.shape[1] // k.shape[1], 1)[:, :, None]
    same = ~(may & garbage).any(-1)
    assert same_bits(*([x[same] for x in result] for result in (before, after)))
