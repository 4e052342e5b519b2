"""What is profiled: attention by name, forward and backward, on torch's tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import fanano
import fanano.torch

Calls = dict[str, Callable[[], Any]]


def calls(shape: Sequence[int], dtype: str, is_causal: bool, device: str = "cpu") -> Calls:
    """The calls by the names of their ranges. Forward as in training: its graph is recorded, where
    there is one to record."""
    generator = torch.Generator().manual_seed(0)
    query, key, value, dout = (
        torch.randn(shape, generator=generator).to(device, getattr(torch, dtype)) for _ in range(4)
    )
    inputs = [x.requires_grad_() for x in (query, key, value)]
    plain = [x.detach() for x in inputs]
    safe = partial(fanano.attention, *plain, is_causal=is_causal, algorithm="safe")
    materialised = partial(by_torch, inputs, is_causal)
    flash = partial(fanano.torch.attention, *inputs, is_causal=is_causal)
    forward_alone = partial(fanano.torch.attention, *plain, is_causal=is_causal)
    return {
        "torch math forward": materialised,
        "fanano safe forward": safe,
        "fanano flash forward": flash if differentiable(flash) else forward_alone,
        "torch math backward": backward(materialised, inputs, dout),
        "fanano flash backward": backward(flash, inputs, dout),
    }


def by_torch(inputs: Sequence[Any], is_causal: bool) -> Any:
    with sdpa_kernel(SDPBackend.MATH):
        query, key, value = inputs
        return scaled_dot_product_attention(query, key, value, is_causal=is_causal)


def backward(forward: Callable[[], Any], inputs: Sequence[Any], dout: Any) -> Callable[[], Any]:
    """The gradients by a graph that is made once."""
    graph: list[Any] = []

    def call() -> Any:
        if not graph:
            graph.append(forward())
        return torch.autograd.grad(graph[0], inputs, dout, retain_graph=True)

    return call


def differentiable(forward: Callable[[], Any]) -> bool:
    """Whether it has gradients on the device of its tensors."""
    try:
        forward()
    except NotImplementedError:
        return False
    return True
