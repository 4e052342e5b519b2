"""Shapes, strides and sizes at the edges, on a CUDA device as test_emulated_cuda.py has it."""

import emulated
import numpy as np
import pytest

import fanano

pytestmark = emulated.needs_emulator


def normal(*shape, dtype=np.float16, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def gradients(attention, backward, arrays, dout, dlse=None, **options):
    out, lse = attention(*arrays, return_lse=True, **options)
    mask = options.get("attn_mask")
    return backward(dout, *arrays, out, lse, dlse=dlse, grad_mask=mask is not None, **options)


def beside_the_cpus(arrays, dout, **options):
    """What the device gives, close to what the CPU does: both are held to the oracle elsewhere."""
    there = gradients(emulated.attention, emulated.attention_backward, arrays, dout, **options)
    here = gradients(fanano.attention, fanano.attention_backward, arrays, dout, **options)
    for name, a, b in zip(("dq", "dk", "dv", "dbias", "dsinks"), there, here, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(
                a.astype(np.float64), b.astype(np.float64), rtol=0.01, atol=0.01, err_msg=name
            )
    return there


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(0, 2, 3, 64), (1, 2, 0, 64)])
def test_no_rows_give_sinks_no_gradient(shape, dtype):
    keys = normal(shape[0], 2, 5, 64, dtype=dtype)
    arrays = np.zeros(shape, dtype), keys, keys
    *_, dk, dv, _, dsinks = beside_the_cpus(arrays, np.zeros(shape, dtype), sinks=[0.5, 1.0])
    assert dsinks.tolist() == [0, 0]
    assert not dk.any()
    assert not dv.any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_keys_without_query_heads_have_no_gradient(dtype):
    keys = normal(1, 2, 5, 64, dtype=dtype)
    nothing = np.zeros((1, 0, 3, 64), dtype)
    _, dk, dv, *_ = beside_the_cpus((nothing, keys, keys), nothing)
    assert not dk.any()
    assert not dv.any()


SHAPES = {
    "decode": (np.float16, 3, 600),
    "sm80": (np.float16, 19, 70),
    "general": (np.float32, 19, 40),
}


@pytest.mark.parametrize("family", SHAPES)
def test_one_slope_for_each_head_of_all_sequences(family):
    dtype, rows, keys = SHAPES[family]
    arrays = [normal(2, 2, n, 64, dtype=dtype, seed=n) for n in (rows, keys, keys)]
    slopes = [0.5, -0.125]
    dout = normal(2, 2, rows, 64, dtype=dtype)
    beside_the_cpus(arrays, dout, alibi_slopes=slopes, is_causal=True)


@pytest.mark.parametrize("family", ["sm80", "general"])
def test_sinks_of_any_size_take_the_rows_that_see_nothing(family):
    dtype, rows, _ = SHAPES[family]
    arrays = [normal(1, 4, n, 64, dtype=dtype, seed=n) for n in (rows, 10, 10)]
    dout, dlse = normal(1, 4, rows, 64, dtype=dtype), normal(1, 4, rows, dtype=np.float32)
    sinks = [1e300, -1e300, 1e6, 0.5]
    *_, dsinks = beside_the_cpus(arrays, dout, dlse=dlse, sinks=sinks, is_causal=True)
    assert dsinks.all()


@pytest.mark.parametrize("family", SHAPES)
def test_masks_of_any_strides(family):
    dtype, rows, keys = SHAPES[family]
    arrays = [normal(1, 2, n, 64, dtype=dtype, seed=n) for n in (rows, keys, keys)]
    dout = normal(1, 2, rows, 64, dtype=dtype)
    mask = normal(keys, 2, 2 * rows, dtype=np.float32)
    for view in (mask.transpose(1, 2, 0)[:, ::2, ::-1], mask[::-1, 0, 1::2].T):
        beside_the_cpus(arrays, dout, attn_mask=view)


@pytest.mark.parametrize("family", ["sm80", "general"])
def test_upstream_gradients_of_any_strides(family):
    dtype, rows, keys = SHAPES[family]
    arrays = [normal(1, 2, n, 64, dtype=dtype, seed=n) for n in (rows, keys, keys)]
    dlse = normal(rows, 2, 3, dtype=np.float32)[:, ::-1, 1].T[None]
    row = normal(1, 1, 1, 64, dtype=dtype)
    turned = normal(64, rows, 2, 1, dtype=dtype).T[:, :, ::-1]
    for dout in (np.broadcast_to(row, (1, 2, rows, 64)), turned):
        beside_the_cpus(arrays, dout, dlse=dlse)


def test_a_scale_of_0_beside_numbers_near_the_end_of_the_range():
    keys = np.copysign(np.float32(3e38), normal(1, 1, 20, 64, dtype=np.float32))
    values = normal(1, 1, 20, 64, dtype=np.float32, seed=1)
    arrays = normal(1, 1, 8, 64, dtype=np.float32), keys, values
    dq, dk, *_ = beside_the_cpus(arrays, normal(1, 1, 8, 64, dtype=np.float32), scale=0.0)
    assert not dq.any()
    assert not dk.any()
