"""Arrays that are known by ``__dlpack__`` alone, of a library that works on a stream of its own: in
torch's memory, on the CPU, and by ``pytest -m cuda`` on a GPU."""

from types import SimpleNamespace

import pytest
import torch
from torch_gpu import PLACES, side_stream, tensors

import fanano


class Lent:
    """What a tensor says by DLPack, and no more; adapters go by the type."""

    def __init__(self, tensor, asked):
        self.tensor, self.asked = tensor, asked

    def __dlpack__(self, **how):
        self.asked.append(how.get("stream"))
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()

    def __array_namespace__(self, api_version=None):
        return SimpleNamespace(from_dlpack=torch.from_dlpack)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("rows", [1, 33])
def test_attention(rows, place):
    """In the order of the lender's stream, before and after: results are as if there were one."""
    arrays = tensors(rows, keys=1100, device=place)
    options = {"is_causal": True, "kv_lengths": [1100, 7]}
    expected = fanano.attention(*arrays, return_lse=True, **options)
    late, asked = torch.zeros_like(arrays[0]), []
    lent = [Lent(x, asked) for x in (late, *arrays[1:])]
    fanano.attention(*lent, return_lse=True, **options)
    late.zero_()
    with side_stream(place):
        if place == "cuda":
            torch.cuda._sleep(100_000_000)
        late.copy_(arrays[0])
        found = fanano.attention(*lent, return_lse=True, **options)
        late.zero_()
        copies = [x.clone() for x in found]
    for x, y in zip(copies, expected, strict=True):
        assert (type(x), x.device, x.dtype) == (torch.Tensor, y.device, y.dtype)
        assert torch.equal(x, y)
    if place == "cuda":  # the legacy default stream, which each array's library lets wait
        assert set(asked) == {1}


@pytest.mark.parametrize("place", PLACES)
def test_gradients(place):
    arrays = tensors(device=place)
    out, lse = fanano.attention(*arrays, return_lse=True)
    dout = torch.randn_like(out)
    expected = fanano.attention_backward(dout, *arrays, out, lse)
    asked = []
    with side_stream(place):
        lent = [Lent(x, asked) for x in (dout, *arrays, out, lse)]
        found = [x.clone() for x in fanano.attention_backward(*lent)[:3]]
    for x, y in zip(found, expected, strict=False):
        assert torch.equal(x, y)
    assert len(asked) >= 6


@pytest.mark.parametrize("place", PLACES)
def test_out(place):
    arrays = tensors(device=place)
    expected = fanano.attention(*arrays)
    out, asked = torch.empty_like(expected), []
    with side_stream(place):
        fanano.attention(*(Lent(x, asked) for x in arrays), out=Lent(out, asked))
    assert torch.equal(out, expected)  # on the default stream: no other one is told to wait
