"""attention_backward with arrays of torch and JAX: their own come back, with the same bits."""

import numpy as np
import pytest
import torch
from arrays import bits, problem, to_torch
from refusals import ones

import fanano


def backward(q, k, v, **options):
    out, lse = fanano.attention(q, k, v, return_lse=True, **options)
    return fanano.attention_backward(
        out, q, k, v, out, lse, dlse=lse, grad_mask="attn_mask" in options, **options
    )


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_torch(dtype):
    """Tensors come back, with the bits that NumPy's arrays have; threads as torch has them."""
    arrays, mask = problem(dtype), ones(33, 40)
    expected = backward(*arrays, attn_mask=mask, sinks=[1, 2, 3, 4.0])
    tensors = [to_torch(x) for x in arrays]
    got = backward(*tensors, attn_mask=to_torch(mask), sinks=torch.tensor([1.0, 2, 3, 4]))
    for x, y in zip(got, expected, strict=True):
        assert isinstance(x, torch.Tensor)
        assert bits(x) == bits(y)
    assert backward(*tensors).dbias is None
    tensors[0].requires_grad_()
    with pytest.raises(NotImplementedError, match="query requires grad"):
        fanano.attention_backward(*[tensors[0]] * 6)
    elsewhere = torch.ones(2, 4, 33, 24, device="meta")
    with pytest.raises(ValueError, match="dout must be in the CPU's memory, it is on device meta"):
        fanano.attention_backward(elsewhere, *[x.detach() for x in tensors], elsewhere, elsewhere)
    with torch.no_grad():
        assert bits(backward(*tensors).dk) == bits(backward(*arrays).dk)


def test_jax():
    jax = pytest.importorskip("jax", reason="jax is not installed")
    arrays, mask = problem(), ones(33, 40)
    expected = backward(*arrays, attn_mask=mask, sinks=[1, 2, 3, 4.0])
    theirs = [jax.numpy.asarray(x) for x in (*arrays, mask)]
    got = backward(*theirs[:3], attn_mask=theirs[3], sinks=[1, 2, 3, 4.0])
    for x, y in zip(got, expected, strict=True):
        assert isinstance(x, jax.Array)
        assert bits(np.asarray(x)) == bits(y)
