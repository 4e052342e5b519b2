"""torch tensors on the CPU: ``torch.Tensor`` itself and ``torch.nn.Parameter``.

Other subclasses carry a meaning that their memory does not (fake, nested, distributed tensors), so
they are refused. A call uses at most ``torch.get_num_threads()`` threads.
"""

from __future__ import annotations

from typing import Any

import torch

library = "torch"
finisher = None

_dtypes = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Where torch lacks DLPack's C exchange, its __dlpack__ refuses parameters even under no_grad().
_detach = not hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


def accepts(argument: str, kind: type) -> bool:
    if not issubclass(kind, torch.Tensor):
        return False
    if kind is not torch.Tensor and kind is not torch.nn.Parameter:
        raise TypeError(
            f"{argument} is a {kind.__module__}.{kind.__qualname__}; only plain torch tensors are "
            "supported: x.as_subclass(torch.Tensor), if its memory says all there is to say"
        )
    return True


def prepare(argument: str, array: Any) -> Any:
    if array.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            f"{argument} requires grad, and the backward pass is not there yet: "
            "call under torch.no_grad(), or pass x.detach()"
        )
    _check_dense(argument, array)
    if array.is_neg():  # a lazy view: its memory holds the numbers before the negation
        array = array.resolve_neg()
    return array.detach() if _detach else array


def check_out(out: Any) -> None:
    if out.requires_grad:
        raise ValueError("out requires grad, and writing to it would bypass autograd")
    if out.is_neg():
        raise ValueError("out is a lazily negated view: what is written would be read negated")
    _check_dense("out", out)


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    return torch.empty(shape, dtype=_dtypes[dtype], device="cpu")


def dtype_name(dtype: Any) -> str:
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"out_dtype must be a torch.dtype or the name of one, got {dtype!r}")
    return str(dtype).removeprefix("torch.")


def max_threads() -> int:
    return torch.get_num_threads()


def _check_dense(argument: str, array: Any) -> None:
    if array.is_nested:
        raise TypeError(f"{argument} is a nested tensor; pass a padded one, and kv_lengths")
    if array.layout is not torch.strided:
        raise TypeError(f"{argument} must be a dense tensor, its layout is {array.layout}")
    if array.device.type != "cpu":
        raise ValueError(
            f"{argument} must be in the CPU's memory, it is on device {array.device}; "
            "x.cpu() copies it there"
        )
