"""Laws that hold for all inputs, drawn by hypothesis; within the one judgement of closeness."""

import cases
import compare
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


KINDS = "normal", "growing", "hidden", "partly hidden"


@st.composite
def problems(draw, kinds=KINDS):
    """A small problem with all masks of the contract's dense inputs."""
    batch, kv_heads, group = draw(st.tuples(*[st.integers(1, 2)] * 3))
    return cases.Case(
        draw(dtypes),
        rows=draw(st.integers(1, 40)),
        keys=draw(st.integers(1, 300)),
        heads=(batch, kv_heads * group, kv_heads, 4),
        dims=(draw(st.integers(1, 40)), draw(st.integers(1, 40))),
        where=draw(st.sampled_from(cases.FACTORS["where"])),
        lengths=draw(st.sampled_from(cases.FACTORS["lengths"])),
        scale=draw(st.sampled_from(cases.FACTORS["scale"])),
        data=draw(st.sampled_from(kinds)),
    )


@given(problems())
def test_any_problem(case):
    judgement = compare.Judgement(str(case))
    for draw in range(case.draws):
        q, k, v = case.arrays(draw)
        out, lse = fanano.attention(q, k, v, return_lse=True, **case.options)
        judgement.add(out, lse, q, k, v, **case.options)
    judgement.verdict()


@given(problems(), st.data())
def test_splitting_the_keys_anywhere(case, data):
    """Partial results over two stretches of the keys merge to the whole."""
    cut = data.draw(st.integers(0, case.keys), label="cut")
    out_dtype = None if case.dtype == "float64" else "float32"
    batch = case.heads[0]
    used = np.broadcast_to(case.options.get("kv_lengths", case.keys), (batch,))
    rows = np.broadcast_to(case.options.get("q_lengths", case.rows), (batch,))
    offset = np.broadcast_to(case.options.get("q_offset", used - rows), (batch,))
    options = case.options | {"out_dtype": out_dtype, "return_lse": True}
    first = options | {"kv_lengths": np.minimum(used, cut), "q_offset": offset}
    second = options | {"kv_lengths": np.maximum(used - cut, 0), "q_offset": offset - cut}
    judgement = compare.Judgement(f"{case} cut at {cut}")
    for draw in range(case.draws):
        q, k, v = case.arrays(draw)
        left = fanano.attention(q, k[:, :, :cut], v[:, :, :cut], **first)
        right = fanano.attention(q, k[:, :, cut:], v[:, :, cut:], **second)
        out, lse = fanano.merge_states(*left, *right)
        judgement.add(out, lse, q, k, v, out_dtype=out_dtype, **case.options)
    judgement.verdict()


@given(problems(KINDS[:2]), st.randoms(use_true_random=False))
def test_permuting_the_keys(case, random):
    """Without a mask that knows positions, the order of the keys is nobody's business."""
    order = list(range(case.keys))
    random.shuffle(order)
    scale = {"scale": case.options["scale"]} if "scale" in case.options else {}
    judgement = compare.Judgement(str(case))
    for draw in range(case.draws):
        q, k, v = case.arrays(draw)
        out, lse = fanano.attention(q, k[:, :, order], v[:, :, order], return_lse=True, **scale)
        judgement.add(out, lse, q, k, v, **scale)
    judgement.verdict()


@given(dtypes, st.integers(1, 300), st.integers(1, 6), st.floats(-50, 50))
def test_softmax_does_not_change_when_all_scores_move(dtype, n, rows, shift):
    """Exactly representable shifts: whole numbers added to whole numbers."""
    x = np.random.default_rng(n).integers(-20, 20, (rows, n)).astype(compare.DTYPES[dtype])
    for algorithm in "safe", "online":
        moved = (x + np.round(shift)).astype(x.dtype)
        before, after = (fanano.softmax(a, algorithm=algorithm).astype(float) for a in (x, moved))
        np.testing.assert_allclose(before, after, rtol=4 * compare.ulp(1.0, x.dtype))
