"""Where results may be written: apart from every input, however the arrays are cut."""

import numpy as np
import pytest
from refusals import SENTINEL, good, ones, refuses

import fanano


@pytest.mark.parametrize("part", ["query", "key", "value"])
@pytest.mark.parametrize("shift", [0, 3, -3])
def test_out_overlaps_an_input(part, shift):
    arguments = good() | {"value": ones(2, 2, 5, 8)}
    memory = np.full(4096, SENTINEL, np.float32)
    shape = arguments[part].shape
    arguments[part] = memory[1000 : 1000 + int(np.prod(shape))].reshape(shape)
    arguments["out"] = memory[1000 + shift : 1000 + shift + 384].reshape(2, 4, 6, 8)
    refuses(
        lambda: fanano.attention(**arguments),
        "overlap",
        f"out shares its memory range with {part}.*separate",
    )
    assert (memory == SENTINEL).all()


def test_out_beside_an_input_is_no_overlap():
    memory = np.ones((2, 2, 4, 6, 8), np.float32)
    fanano.attention(memory[0], memory[0], memory[0], out=memory[1])
    backwards = memory[1][..., ::-1]
    assert fanano.attention(memory[0], memory[0], memory[0], out=backwards) is backwards


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_parts_of_one_packed_buffer_are_apart(axis):
    """Ranges of addresses meet, bytes do not."""
    q, k, v, _ = np.random.default_rng(0).standard_normal((4, 2, 16, 3, 8)).astype(np.float32)
    memory = np.stack([q, k, v, np.full_like(q, SENTINEL)], axis=axis)
    parts = [memory[(slice(None),) * axis + (i,)] for i in range(4)]
    expected = fanano.attention(q, k, v, layout="bshd")
    fanano.attention(*parts[:3], out=parts[3], layout="bshd")
    np.testing.assert_array_equal(parts[3], expected)
    for part, original in zip(parts, (q, k, v), strict=False):
        np.testing.assert_array_equal(part, original)
    late = memory.reshape(-1)[1:]  # one element on: the same steps, and now they meet
    shifted = np.lib.stride_tricks.as_strided(late, parts[1].shape, parts[1].strides)
    refuses(
        lambda: fanano.attention(parts[0], parts[1], parts[1], out=shifted, layout="bshd"),
        "overlap",
        "out shares its memory range with",
    )


def test_what_is_accepted_shares_no_element():
    rng = np.random.default_rng(1)
    memory = np.ones(400, np.float32)
    places = np.arange(400, dtype=np.int32)
    accepted = refused = 0
    for _ in range(2000):
        shape = tuple(int(n) for n in rng.integers(1, 4, 3))
        x, out = (
            (places[start:], rng.choice([1, 2, 3, 4, 6, 8, 12, 24, 36], 3))
            for start in rng.integers(0, 40, 2)
        )
        x, out = (np.lib.stride_tricks.as_strided(a, shape, 4 * steps) for a, steps in (x, out))
        together = bool(set(x.flat) & set(out.flat))
        begin, end = x.flat[0], out.flat[0]
        a, b = (
            np.lib.stride_tricks.as_strided(memory[at:], shape, v.strides)
            for at, v in ((begin, x), (end, out))
        )
        try:
            fanano.attention(a, a, a, out=b)
        except ValueError as error:
            refused += "memory range" in str(error)
        else:
            assert not together
            accepted += min(x.max(), out.max()) >= max(begin, end)
    assert accepted > 20
    assert refused > 20
