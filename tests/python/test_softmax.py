"""The ladder's first three steps: naive, safe and online softmax of any array along any axis."""

import compare
import numpy as np
import oracle
import pytest

import fanano

ALGORITHMS = ["naive", "safe", "online"]


def judge(got, x, axis=-1, what=""):
    """The rule for outputs; a row's largest probability stands for its largest value."""
    assert (got.dtype, got.shape) == (x.dtype, x.shape), what
    if x.size == 0:
        return
    exact = oracle.softmax(x, axis)
    largest = np.abs(np.where(np.isfinite(exact), exact, 0)).max(axis, keepdims=True)
    errors = compare.Errors(what)
    if x.dtype == np.float64:
        errors.add(got, exact, exact, 1e-12 * largest)
        errors.judge_alone()
        return
    errors.add(got, exact, exact.astype(x.dtype), compare.rows_floor(largest, x.dtype, x.dtype))
    errors.judge()


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 127, 128, 131, 1000, 4099])
def test_each_length(n, algorithm, dtype):
    x = np.random.default_rng(n).standard_normal((5, n)) * 3
    x = x.astype(compare.DTYPES[dtype])
    judge(fanano.softmax(x, algorithm=algorithm), x, what=f"n={n}")


SHAPES = [(7,), (3, 5), (2, 3, 4), (1, 2, 1, 5), (2, 1, 3, 2, 4), (2,) * 8]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_axis(shape, algorithm):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for axis in range(-len(shape), len(shape)):
        judge(fanano.softmax(x, axis=axis, algorithm=algorithm), x, axis, f"axis {axis}")


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_stride(algorithm, dtype):
    base = np.random.default_rng(1).standard_normal((12, 14, 10)).astype(compare.DTYPES[dtype])
    views = {
        "transposed": base.T,
        "reversed": base[::-1, ::-1, ::-1],
        "every other": base[::2, 1::3, ::-2],
        "broadcast": np.broadcast_to(base[:, :1], base.shape),
        "offset": base[1:, 1:, 1:],
    }
    for name, x in views.items():
        for axis in range(3):
            got = fanano.softmax(x, axis=axis, algorithm=algorithm)
            judge(got, x, axis, f"{name}, axis {axis}")
            assert (
                got.tobytes() == fanano.softmax(x.copy(), axis=axis, algorithm=algorithm).tobytes()
            )


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 4)], ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_at_all(shape, algorithm):
    for axis in range(len(shape)):
        assert (
            fanano.softmax(np.zeros(shape, np.float32), axis=axis, algorithm=algorithm).shape
            == shape
        )


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("n", [1, 20, 200])
def test_a_row_of_minus_infinity(n, dtype):
    """Nothing to choose from: zeros for safe and online; naive divides zero by zero."""
    x = np.zeros((3, n), compare.DTYPES[dtype])
    x[1] = -np.inf
    for algorithm, expected in ("naive", np.nan), ("safe", 0), ("online", 0):
        got = fanano.softmax(x, algorithm=algorithm)
        np.testing.assert_array_equal(got[1].astype(float), np.full(n, expected))
        judge(got[[0, 2]], x[[0, 2]])


@pytest.mark.parametrize("dtype", compare.DTYPES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_masked_scores_weigh_exactly_nothing(algorithm, dtype):
    x = np.random.default_rng(2).standard_normal((4, 100)).astype(compare.DTYPES[dtype])
    x[:, ::3] = -np.inf
    got = fanano.softmax(x, algorithm=algorithm)
    assert (got[:, ::3] == 0).all()
    judge(got, x)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("special", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 5, 63, 99])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_a_nan_or_an_infinity_spoils_its_row_alone(dtype, at, special, algorithm):
    x = np.random.default_rng(3).standard_normal((3, 100)).astype(compare.DTYPES[dtype])
    clean = fanano.softmax(x, algorithm=algorithm)
    x[1, at] = special
    got = fanano.softmax(x, algorithm=algorithm)
    if np.isnan(special) or algorithm != "naive":
        assert np.isnan(got[1]).any()
    if np.isnan(special):
        assert np.isnan(got[1]).all()
    assert got[[0, 2]].tobytes() == clean[[0, 2]].tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("size", [1e4, 1e7, 1e30])
def test_huge_scores(size, dtype):
    x = (np.random.default_rng(4).standard_normal((6, 131)) * size).astype(compare.DTYPES[dtype])
    for algorithm in "safe", "online":
        judge(fanano.softmax(x, algorithm=algorithm), x, what=f"{algorithm} {size}")


def test_naive_overflows_as_its_docstring_says():
    x = np.array([1.0, 89.0, 2.0], np.float32)  # e^89 > 3.4e38
    np.testing.assert_array_equal(fanano.softmax(x, algorithm="naive"), [0, np.nan, 0])
    for algorithm in "safe", "online":
        judge(fanano.softmax(x, algorithm=algorithm), x)
    assert "overflow" in fanano.softmax.__doc__


@pytest.mark.parametrize("algorithm", ["safe", "online"])
def test_rising_and_falling_maxima(algorithm):
    ramp = np.linspace(-300, 300, 1003, dtype=np.float32)
    for x in ramp, ramp[::-1], np.concatenate([ramp, ramp[::-1]]), np.repeat(ramp[::100], 70):
        judge(fanano.softmax(x, algorithm=algorithm), x)


def test_online_is_the_default():
    x = np.random.default_rng(5).standard_normal((3, 70)).astype(np.float32)
    assert fanano.softmax(x).tobytes() == fanano.softmax(x, algorithm="online").tobytes()
