"""torch tensors: ``torch.Tensor`` itself and ``torch.nn.Parameter``; on CUDA for attention and its
gradients alone.

Other subclasses carry a meaning that their memory does not (nested, distributed tensors), so they
are refused, but for those that stand for others while torch traces. A call uses at most
``torch.get_num_threads()`` threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from .. import _core
from . import Watched

PLAIN = torch.Tensor, torch.nn.Parameter  # whose memory may say all there is to say

library = "torch"
stream = None
finisher = None
max_threads = torch.get_num_threads

# They spin for a while after each of torch's operations, and slow down whoever else works then.
if torch.backends.openmp.is_available():  # type: ignore[no-untyped-call]
    _core.borrow_openmp("libtorch_cpu.so")

# DLPack's C exchange: the core reads and makes tensors without calling Python.
_exchange = hasattr(torch.Tensor, "__dlpack_c_exchange_api__")

_is_tracing = getattr(torch._C, "_is_tracing", torch.jit.is_tracing)  # type: ignore[attr-defined]

# How many modes (make_fx, fake tensors, counters of operations ...) watch what torch does; those of
# the last kind, which are slow to count, come with one of torch functions.
_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_function_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 0)
_early_modes = getattr(torch._ops, "_len_torch_dispatch_stack_pre_dispatch", lambda: 0)


# Whether one of torch's profilers is on.
profiled = getattr(torch.autograd, "_profiler_enabled", lambda: False)

# Whether a torch.func transform (vmap, grad, jvp ...) is under way.
transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


def operators(*args: Any, **options: Any) -> Any:
    """``fanano.attention`` where torch watches."""
    from ..torch import calls

    return calls.attention(*args, **options)


def accepts(argument: str, kind: type) -> bool:
    if not issubclass(kind, torch.Tensor):
        return False
    if kind not in PLAIN and not _stands_in(kind):
        raise TypeError(
            f"{argument} is a {kind.__module__}.{kind.__qualname__}; only plain torch tensors are "
            "supported: x.as_subclass(torch.Tensor), if its memory says all there is to say"
        )
    return True


def _stands_in(kind: type) -> bool:
    """For other tensors, while torch traces."""
    names = "FakeTensor", "FunctionalTensor"
    return kind.__module__.startswith("torch._subclasses.") and kind.__name__ in names


def recorded(thorough: bool = False) -> bool:
    """Whether what torch does is compiled, traced, or seen by a mode. Inside of a backward pass
    modes of functions are off, and their others are seen by a thorough look alone."""
    # In the order of cost: small calls spend most of their time in such questions.
    return bool(
        torch.compiler.is_compiling()
        or _is_tracing()
        or _modes()
        or ((thorough or _function_modes()) and _early_modes())
    )


def prepare(names: Sequence[str], arrays: Sequence[Any]) -> Sequence[Any]:
    if recorded():
        raise Watched(
            "this call is being traced, and what fanano computes would be recorded as a constant; "
            "of fanano only attention can be traced: call the others eagerly, outside of "
            "torch.compile, torch.jit.trace, make_fx and torch's dispatch modes",
            library,
            operators,
        )
    kind = type(arrays[0])
    if arrays[0].is_meta or (kind not in PLAIN and _stands_in(kind)):
        raise Watched(
            f"{names[0]} has no memory (it is a {kind.__name__} on device {arrays[0].device}), and "
            "of fanano only attention takes such tensors",
            library,
            operators,
        )
    tracked = torch.is_grad_enabled()
    # No dual numbers anywhere, nor tensors of transforms.
    if _exchange and getattr(forward_ad, "_current_level", 0) < 0 and not transformed():
        for array in arrays:
            if (tracked and array.requires_grad) or array.is_neg():
                break
        else:
            return arrays
    return [_prepare(name, array) for name, array in zip(names, arrays, strict=True)]


def _prepare(argument: str, array: Any) -> Any:
    _check_transforms(argument, array)
    if array.requires_grad and torch.is_grad_enabled():
        raise Watched(
            f"{argument} requires grad, and of fanano only attention has a derivative: "
            "call under torch.no_grad(), or pass x.detach()",
            library,
            operators,
        )
    if has_tangents(array):
        raise Watched(
            f"{argument} has a forward-mode tangent, and fanano has no forward derivatives: "
            "pass the primal of torch.autograd.forward_ad.unpack_dual(x)",
            library,
            operators,
        )
    check_streams(argument, array)
    if array.is_neg():  # a lazy view: its memory holds the numbers before the negation
        array = array.resolve_neg()
    return memory(array)


def check_streams(argument: str, array: Any) -> None:
    """Whether torch says on which stream of its device it works."""
    if array.is_cuda and not _exchange:
        raise NotImplementedError(
            f"{argument} is on device {array.device}, and this torch ({torch.__version__}) cannot "
            "say on which stream it works there (torch 2.13 can, by DLPack's C exchange): pass "
            "x.cpu()"
        )


def has_tangents(*arrays: Any) -> bool:
    """Whether one of them has; None is none."""
    if getattr(forward_ad, "_current_level", 0) < 0:
        return False
    unpack: Any = forward_ad.unpack_dual
    return any(x is not None and unpack(x).tangent is not None for x in arrays)


def memory(array: Any) -> Any:
    """What the core reads where nothing is left to be asked of torch."""
    # Without the exchange torch refuses to lend parameters, even under no_grad().
    return array if _exchange or array is None else array.detach()


def check_out(out: Any) -> None:
    if out.requires_grad:
        raise ValueError("out requires grad, and writing to it would bypass autograd")
    if out.is_neg():
        raise ValueError("out is a lazily negated view: what is written would be read negated")


def written(out: Any) -> None:
    # What autograd has saved of it is stale now. Inference tensors are never saved, nor counted.
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)


# The options that attention reads on a device, beside its arrays, and of which dtype there.
_DEVICE_OPTIONS = {
    **dict.fromkeys(("q_lengths", "kv_lengths", "q_offset", "seed"), torch.int64),
    **dict.fromkeys(("alibi_slopes", "sinks"), torch.float64),
}


def device_option(argument: str, x: Any, query: Any) -> Any:
    dtype = _DEVICE_OPTIONS.get(argument)
    if dtype is None or not x.is_cuda:
        return x
    if os.environ.get("FANANO_CHECK") == "1":
        return x.cpu()  # waits for the device; the core looks at what it gave
    if argument == "seed":
        return x.to(dtype)
    if dtype.is_floating_point != x.is_floating_point() or x.dtype in (torch.uint8, torch.bool):
        return x  # for the core to refuse
    x = x.to(dtype)
    if argument == "sinks":  # as the core does: none (-inf) stays, others stay finite in the sums
        kind = torch.float64 if query.dtype == torch.float64 else torch.float32
        limit = torch.finfo(kind).max / 8
        x = torch.where(x == -torch.inf, x, x.clamp(-limit, limit))
    if dtype == torch.int64 and x.dim() == 0:
        x = x.expand(query.shape[0] if query.dim() == 4 else 1)
    return x.contiguous()


def diagnose(cuda: bool, /, **arrays: Any) -> None:
    for argument, array in arrays.items():
        if not isinstance(array, torch.Tensor):
            continue
        _check_transforms(argument, array)
        if _stands_in(type(array)):
            raise TypeError(
                f"{argument} is a {type(array).__name__}, which has no memory, beside plain tensors"
            )
        if array.is_nested:
            raise TypeError(f"{argument} is a nested tensor; pass a padded one, and kv_lengths")
        if array.is_quantized:
            raise TypeError(f"{argument} is quantized ({array.dtype}); pass x.dequantize()")
        if array.layout is not torch.strided:
            raise TypeError(f"{argument} must be a dense tensor, its layout is {array.layout}")
        if array.is_cuda:
            if cuda:
                continue
            raise NotImplementedError(
                f"{argument} is on device {array.device}: of fanano only attention and its "
                "gradients run there; x.cpu() copies it to the CPU"
            )
        if array.device.type != "cpu":
            raise ValueError(
                f"{argument} must be in the CPU's memory, it is on device {array.device}; "
                "x.cpu() copies it there"
            )


def _empty(shape: tuple[int, ...], dtype: str) -> Any:
    return torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")


empty = None if _exchange else _empty


def dtype_name(dtype: Any) -> str:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"out_dtype must be a torch.dtype or the name of one, got {dtype!r}")
    return str(dtype).removeprefix("torch.")


def fresh_seed(query: Any) -> Any:
    seed = seed_tensor(query)
    return seed if query.is_cuda else int(seed)


def seed_tensor(query: Any) -> Any:
    """A seed of torch's default generator of query's device, which ``torch.manual_seed`` sets. On
    CUDA nobody looks at it, and a graph draws it anew at each replay."""
    device = query.device if query.is_cuda else "cpu"
    return torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64, device=device)


def _check_transforms(argument: str, array: Any) -> None:
    functorch = getattr(torch._C, "_functorch", None)
    if functorch is not None and functorch.is_functorch_wrapped_tensor(array):
        raise Watched(
            f"{argument} is inside of a torch.func transform (vmap, grad, jvp ...), "
            "and of fanano only attention can be transformed",
            library,
            operators,
        )
