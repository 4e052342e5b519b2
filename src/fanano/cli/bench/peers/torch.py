"""torch's scaled_dot_product_attention by each of its back ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, Inputs
from ..cases import Case
from .peer import CannotRun, Peer, Prepared


def tensors(case: Case, one: Sequence[Array]) -> list[Any]:
    """The same memory as torch's tensors, which it may be already."""
    import torch

    if isinstance(one[0], torch.Tensor):
        return list(one)
    if case.dtype != "bfloat16":
        return [torch.from_numpy(x) for x in one]
    # from_numpy does not know ml_dtypes.
    return [torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) for x in one]


def to_array(one: Sequence[Array]) -> Callable[[Any], Any]:
    """What makes an array of a result, as the inputs are."""
    if isinstance(one[0], np.ndarray):
        return lambda out: np.asarray(out.double())
    return lambda out: out


def gradients(attend: Callable[..., Any], case: Case, one: Inputs, dout: Array) -> Prepared:
    """What autograd computes of an attention: its graph is made here, and run by each call."""
    import torch

    *inputs, upstream = (x.detach() for x in tensors(case, [*one, dout]))  # others have them, too
    for x in inputs:
        x.requires_grad_()
    with torch.enable_grad():
        out = attend(*inputs)
    call = partial(torch.autograd.grad, out, inputs, upstream, retain_graph=True, allow_unused=True)
    if not out.requires_grad or None in call():
        raise CannotRun("autograd knows no derivative of it")
    unpack = to_array(one)
    return Prepared([call], lambda found: [unpack(x) for x in found])


class Torch(Peer):
    """What its back ends share."""

    backend: ClassVar[str]
    library = "torch"
    packages = ("torch",)
    groups = (*Peer.groups, "backward")

    def start(self, threads: int) -> str:
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        # Its OpenMP threads spin for some ten milliseconds after a call; timing.settled() waits.
        return (
            f"torch.set_num_threads({threads}), no grad mode; its spinning threads are waited for"
        )

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        attend = self.attention(case)
        calls = [partial(attend, *tensors(case, one)) for one in sets]
        return Prepared(calls, to_array(sets[0]))

    def backward(self, case: Case, one: Inputs, dout: Array) -> Prepared:
        return gradients(self.attention(case), case, one, dout)

    def attention(self, case: Case) -> Callable[..., Any]:
        from torch.nn.functional import scaled_dot_product_attention

        shared = case.heads != case.kv_heads
        return partial(scaled_dot_product_attention, is_causal=case.causal, enable_gqa=shared)

    def around(self) -> AbstractContextManager[Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(getattr(SDPBackend, self.backend))


class Flash(Torch):
    name = "torch flash"
    backend = "FLASH_ATTENTION"
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")


class Deterministic(Flash):
    """Its gradients without atomic sums: the one back end that has a switch for it."""

    name = "torch flash, repeats"
    groups = ("backward",)
    devices = ("cuda",)

    @contextmanager
    def around(self) -> Iterator[None]:
        import torch

        deterministic: Any = torch.utils.deterministic
        before = torch.are_deterministic_algorithms_enabled()
        fills = deterministic.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # no part of the sums
        try:
            with super().around():
                yield
        finally:
            torch.use_deterministic_algorithms(before)
            deterministic.fill_uninitialized_memory = fills


class CuDnn(Torch):
    name = "torch cuDNN"
    backend = "CUDNN_ATTENTION"
    devices = ("cuda",)


class Efficient(Torch):
    name = "torch efficient"
    backend = "EFFICIENT_ATTENTION"
    devices = ("cuda",)


class Math(Torch):
    name = "torch math"
    backend = "MATH"
    devices = ("cpu", "cuda")
    untimed = ("cuda",)
