"""The same bits a thousand times on a GPU, while it is busy with other things as well; three times
on the CPU. By ``pytest -m cuda``."""

import pytest
import torch
from torch_gpu import PLACES, tensors

import fanano


class Busy:
    """Products on a stream of their own, beside whatever is asked for."""

    def __init__(self, place):
        self.stream = torch.cuda.Stream() if place == "cuda" else None
        self.square = torch.ones(2048 if self.stream else 16, device=place).diag()

    def go_on(self):
        with torch.cuda.stream(self.stream):  # of None: where we are
            self.square @ self.square


def repeated(call, place, *, finite):
    expected, busy = call(), Busy(place)
    differ = torch.zeros(len(expected), dtype=torch.int64, device=place)
    for _ in range(1000 if place == "cuda" else 3):
        busy.go_on()
        for index, (x, y) in enumerate(zip(call(), expected, strict=True)):
            differ[index] += (x.view(torch.uint8) != y.view(torch.uint8)).sum()
    assert differ.tolist() == [0] * len(expected)
    assert all(torch.isfinite(x).all() for x in expected[:finite])


@pytest.mark.parametrize("place", PLACES)
# Of 1389 keys decode makes three splits, which are merged.
@pytest.mark.parametrize(("rows", "keys"), [(1, 1389), (389, 389)], ids=["decode", "prefill"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_forward(dtype, rows, keys, place):
    query, key, value = tensors(rows, keys, dtype=dtype, device=place)

    def call():
        return fanano.attention(query, key, value, is_causal=True, return_lse=True)

    repeated(call, place, finite=2)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("of_the_mask", [False, True], ids=["", "and of the mask"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_backward(dtype, of_the_mask, place):
    """Each of the gradients is a sum over many blocks."""
    arrays = tensors(197, 389, dtype=dtype, device=place)
    options = {
        "sinks": torch.linspace(-1, 1, 4, device=place),
        "attn_mask": torch.linspace(-1, 1, 197 * 389, device=place).reshape(197, 389),
    }
    out, lse = fanano.attention(*arrays, return_lse=True, **options)
    dout = torch.randn_like(out)

    def call():
        found = fanano.attention_backward(dout, *arrays, out, lse, grad_mask=of_the_mask, **options)
        return [x for x in found if x is not None]

    assert len(call()) == 4 + of_the_mask
    repeated(call, place, finite=5)
