"""No access outside an array: each begins or ends where the next byte is a fault. A failure here is
a crash of the process, and the test that was running is the one that is named."""

import compare
import numpy as np
import pytest
from cases import Case
from guarded import between_pages, far_apart

import fanano

pytestmark = pytest.mark.parametrize("dtype", compare.DTYPES)

SIZES = [  # rows, keys, D, Dv
    (1, 1, 1, 1),
    (1, 5, 3, 2),
    (3, 129, 7, 5),
    (17, 16, 16, 16),
    (16, 127, 33, 31),
    (4, 67, 64, 32),
    (1, 515, 16, 64),
    (33, 128, 64, 65),
    (65, 257, 80, 3),
    (5, 70, 129, 0),
]


def guard(arrays, at):
    return [between_pages(x, at) for x in arrays]


def call(arrays, at, *, return_lse=True, algorithm="flash", **options):
    """Attention of guarded copies into a guarded out; checked against the same without guards."""
    expected, lse = fanano.attention(*arrays, return_lse=True, algorithm=algorithm, **options)
    room = between_pages(np.zeros_like(expected), at)
    got = fanano.attention(
        *guard(arrays, at), out=room, return_lse=True, algorithm=algorithm, **options
    )
    assert got[0].tobytes() == expected.tobytes()
    assert got[1].tobytes() == lse.tobytes()


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention(sizes, algorithm, layout, at, dtype):
    rows, keys, dim, value_dim = sizes
    case = Case(
        dtype, rows=rows, keys=keys, heads=(2, 4, 2, 4), dims=(dim, value_dim), layout=layout
    )
    for causal in False, True:
        call(case.arrays(), at, algorithm=algorithm, layout=layout, is_causal=causal)


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("algorithm", ["flash", "safe"])
@pytest.mark.parametrize("kind", ["bool", *compare.DTYPES])
@pytest.mark.parametrize("shape", [(35, 131), (2, 4, 35, 131), (4, 1, 131), (131,), (35, 1), ()])
def test_masks(shape, kind, algorithm, at, dtype):
    arrays = Case(dtype, rows=35, keys=131, heads=(2, 4, 2, 4), dims=(9, 11)).arrays()
    rng = np.random.default_rng(3)
    mask = rng.random(shape) < 0.5
    if kind != "bool":
        mask = np.where(mask, rng.standard_normal(shape), -np.inf).astype(compare.DTYPES[kind])
    for options in {}, {"kv_lengths": [131, 100]}, {"window_size": (3, 3)}:
        expected = fanano.attention(
            *arrays, attn_mask=np.asarray(mask), algorithm=algorithm, **options
        )
        guarded = between_pages(np.asarray(mask), at)
        got = fanano.attention(*arrays, attn_mask=guarded, algorithm=algorithm, **options)
        assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("strides", ["columns", "reversed", "broadcast"])
def test_strided(strides, at, dtype):
    """The last element is the last byte: a whole vector read there would fault."""
    arrays = Case(dtype, rows=35, keys=70, heads=(1, 2, 2, 4), dims=(9, 11)).arrays()
    plain = fanano.attention(*arrays)
    moved = []
    for x in arrays:
        if strides == "columns":
            spread = np.zeros((x.size - 1) * 3 + 1, x.dtype)
            room = between_pages(spread, at)
            steps = [s * 3 for s in x.strides]
            view = np.lib.stride_tricks.as_strided(room, x.shape, steps)
            view[...] = x
        elif strides == "reversed":
            view = between_pages(x[..., ::-1, ::-1], at)[..., ::-1, ::-1]
        else:
            view = between_pages(x, at)
        moved.append(view)
    if strides == "broadcast":
        one = between_pages(arrays[0][:, :, :1], at)
        moved[0] = np.broadcast_to(one, arrays[0].shape)
        plain = fanano.attention(moved[0].copy(), *arrays[1:])
    assert fanano.attention(*moved).tobytes() == plain.tobytes()


@pytest.mark.parametrize("at", ["start", "end"])
def test_padded_keys_are_not_read(at, dtype):
    """A million keys by their shape, 77 by their length: the others are out of bounds."""
    q, k, v = Case(dtype, rows=20, keys=77, heads=(1, 2, 2, 4), dims=(24, 17)).arrays()
    expected = fanano.attention(q, k, v)
    short = [between_pages(x[:, :1], at) for x in (k, v)]
    long = [np.lib.stride_tricks.as_strided(x, (1, 1, 10**6, x.shape[3]), x.strides) for x in short]
    got = fanano.attention(between_pages(q[:, :1], at), *long, kv_lengths=[77])
    assert got.tobytes() == expected[:, :1].tobytes()


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("algorithm", ["naive", "safe", "online"])
def test_softmax(algorithm, at, dtype):
    for n in 1, 3, 8, 15, 16, 17, 130:
        x = np.random.default_rng(n).standard_normal((3, n)).astype(compare.DTYPES[dtype])
        for axis in 0, 1:
            expected = fanano.softmax(x, axis=axis, algorithm=algorithm)
            got = fanano.softmax(between_pages(x, at), axis=axis, algorithm=algorithm)
            assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("at", ["start", "end"])
def test_merging(at, dtype):
    q, k, v = Case(dtype, rows=9, keys=20, dims=(8, 13)).arrays()
    out_dtype = None if dtype == "float64" else "float32"
    whole = fanano.attention(q, k, v, return_lse=True, out_dtype=out_dtype)
    expected = fanano.merge_states(*whole, *whole)
    got = fanano.merge_states(*guard((*whole, *whole), at))
    assert [x.tobytes() for x in got] == [x.tobytes() for x in expected]
    numbers = v[0, 0, :, 0].copy()
    lse = fanano.SoftmaxState().absorb(numbers).lse
    assert fanano.SoftmaxState().absorb(between_pages(numbers, at)).lse == lse


@pytest.mark.parametrize("axis", ["batch", "head", "row", "column"])
def test_strides_beyond_32_bits(axis, dtype):
    """Elements more than 2^31 apart along each axis in turn, in memory that mostly is not there."""
    case = Case(dtype, rows=3, keys=5, heads=(2, 2, 2, 4), dims=(4, 3))
    arrays = case.arrays()
    far = 2**31 + 9
    sparse = []
    result = fanano.attention(*arrays, is_causal=True)
    for x in (*arrays, result):
        strides = [s // x.itemsize for s in x.strides]
        strides[("batch", "head", "row", "column").index(axis)] = far
        sparse.append(far_apart(x.shape, x.dtype, strides))
        if x is not result:
            sparse[-1][...] = x
    got = fanano.attention(*sparse[:3], is_causal=True, out=sparse[3])
    assert got.tobytes() == result.tobytes()
