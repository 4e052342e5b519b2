"""Merging: the identity that tiling, splitting and distributing attention all stand on."""

import copy
import itertools
import pickle

import compare
import numpy as np
import oracle
import pytest
from cases import Case

import fanano

EXAMPLE = [0.1, 0.5, 0.4, 0.2, 0.3, 0.3]


def test_the_worked_example():
    first = fanano.SoftmaxState().absorb(np.array(EXAMPLE[:3]))
    second = fanano.SoftmaxState().absorb(np.array(EXAMPLE[3:]))
    assert first.m == pytest.approx(0.5, abs=1e-5)
    assert first.l == pytest.approx(2.57516, abs=1e-5)
    assert second.m == pytest.approx(0.3, abs=1e-5)
    assert second.l == pytest.approx(2.90484, abs=1e-5)
    both = first.merge(second)
    assert both.m == pytest.approx(0.5, abs=1e-5)
    assert both.l == pytest.approx(4.95344, abs=1e-5)
    assert both.lse == pytest.approx(np.log(np.exp(EXAMPLE).sum()), abs=1e-12)


@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_absorbing_piece_by_piece(dtype):
    x = np.random.default_rng(0).standard_normal(100).astype(compare.DTYPES[dtype]) * 5
    state = fanano.SoftmaxState()
    for piece in np.split(x, [0, 1, 1, 40, 77]):
        state = state.absorb(piece)
    assert state.lse == pytest.approx(float(oracle.lse(x)), rel=1e-6)
    assert state.m == pytest.approx(float(x.max()), rel=1e-6)
    reversed_ = fanano.SoftmaxState().absorb(x[::-1])
    tight = 1e-12 if dtype == "float64" else 2e-7  # sums are in float32 but for float64
    assert reversed_.lse == pytest.approx(state.lse, rel=tight)


def test_the_empty_state_is_the_unit():
    empty = fanano.SoftmaxState()
    some = empty.absorb(np.array(EXAMPLE))
    assert empty.lse == -np.inf
    assert empty.merge(empty).lse == -np.inf
    assert empty.merge(some).lse == some.lse == some.merge(empty).lse
    assert empty.absorb(np.full(3, -np.inf)).lse == -np.inf
    assert some.absorb(np.full(3, -np.inf)).lse == some.lse


def test_a_state_is_a_value():
    one = fanano.SoftmaxState().absorb(np.array(EXAMPLE))
    other = fanano.SoftmaxState().absorb(np.array(EXAMPLE[:3]))
    copies = [pickle.loads(pickle.dumps(one, protocol)) for protocol in range(6)]
    for same in (*copies, copy.copy(one), copy.deepcopy(one)):
        assert same == one
        assert hash(same) == hash(one)
        assert (same.m, same.l, same.lse) == (one.m, one.l, one.lse)
        assert same.merge(other) == one.merge(other)
    assert one != other
    assert one != (one.m, one.l)
    assert fanano.SoftmaxState() == pickle.loads(pickle.dumps(fanano.SoftmaxState()))


def test_a_nan_stays():
    state = fanano.SoftmaxState().absorb(np.array([1.0, np.nan, 2.0]))
    assert np.isnan(state.lse)
    assert np.isnan(state.merge(fanano.SoftmaxState().absorb(np.ones(3))).lse)
    assert np.isnan(fanano.SoftmaxState().absorb(np.ones(3)).merge(state).lse)


def parts(case, cuts, **options):
    """Attention over each stretch of the keys, as unrounded partial results."""
    q, k, v = case.arrays()
    cuts = [0, *cuts, case.keys]
    out_dtype = None if case.dtype == "float64" else "float32"
    return [
        fanano.attention(
            q, k[:, :, a:b], v[:, :, a:b], out_dtype=out_dtype, return_lse=True, **options
        )
        for a, b in itertools.pairwise(cuts)
    ]


def merged(states):
    out, lse = states[0]
    for other in states[1:]:
        out, lse = fanano.merge_states(out, lse, *other)
    return out, lse


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("cuts", [[50], [1], [149], [0], [150], [10, 10, 100], [37, 74, 111]])
def test_parts_of_the_keys_make_the_whole(cuts, dtype):
    case = Case(dtype, rows=33, keys=150, heads=(2, 4, 2, 4), dims=(32, 17), data="growing")
    out, lse = merged(parts(case, cuts))
    out_dtype = None if dtype == "float64" else "float32"
    compare.judge_attention(out, lse, *case.arrays(), out_dtype=out_dtype)


def test_an_empty_part_changes_no_bit():
    case = Case("float32", rows=20, keys=30, dims=(8, 5))
    q, k, v = case.arrays()
    out, lse = fanano.attention(q, k, v, return_lse=True)
    nothing = fanano.attention(q, k[:, :, :0], v[:, :, :0], return_lse=True)
    for merged_out, merged_lse in (
        fanano.merge_states(out, lse, *nothing),
        fanano.merge_states(*nothing, out, lse),
    ):
        assert merged_out.tobytes() == out.tobytes()
        np.testing.assert_allclose(merged_lse, lse, rtol=2e-7)
    out, lse = fanano.merge_states(*nothing, *nothing)
    assert (out == 0).all()
    assert (lse == -np.inf).all()


def test_an_empty_part_hides_what_stands_there():
    """lse = -inf says that the part saw nothing: its numbers are not read as values."""
    out, lse = np.ones((3, 4), np.float32), np.zeros(3, np.float32)
    garbage = np.full((3, 4), np.nan, np.float32)
    empty = np.full(3, -np.inf, np.float32)
    np.testing.assert_array_equal(fanano.merge_states(out, lse, garbage, empty)[0], out)
    np.testing.assert_array_equal(fanano.merge_states(garbage, empty, out, lse)[0], out)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 5, 4), (2, 3, 5, 4), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_rank(shape, dtype):
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    la, lb = (np.asarray(3 * rng.standard_normal(shape[:-1]), dtype) for _ in range(2))
    out, lse = fanano.merge_states(a, la, b, lb)
    assert out.shape == shape
    assert lse.shape == shape[:-1]
    wa, wb = (np.exp(x.astype(float)) for x in (la, lb))
    expected = (a * wa[..., None] + b * wb[..., None]) / (wa + wb)[..., None]
    tight = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(out, expected, rtol=tight, atol=tight)
    np.testing.assert_allclose(lse, np.log(wa + wb), rtol=tight, atol=tight)


def test_strided_parts():
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal((6, 10, 8)).astype(np.float32) for _ in range(2))
    la, lb = (rng.standard_normal((6, 10)).astype(np.float32) for _ in range(2))
    views = [np.s_[::-1, ::2, ::-1], np.s_[1:, :, 1:5]]
    for s in views:
        strided = fanano.merge_states(a[s], la[s[:2]], b[s], lb[s[:2]])
        packed = fanano.merge_states(*(x.copy() for x in (a[s], la[s[:2]], b[s], lb[s[:2]])))
        assert [x.tobytes() for x in strided] == [x.tobytes() for x in packed]
