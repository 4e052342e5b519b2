"""What torch's autograd and torch.func see of attention: the operators with derivatives, and vmap.

The operators have derivatives of their own, which whatever was recorded keeps: compiled, traced and
exported graphs. torch.func's transforms do more with a torch.autograd.Function (vmap is one call),
and in eager mode one is faster. Private.
"""

# mypy: disable-error-code="no-untyped-call, misc"

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import Function, _SingleLevelFunction

from ..adapters import torch as adapter
from . import operators

__all__ = [
    "Attention",
    "AttentionBackward",
    "EagerAttention",
    "differentiable",
    "refuse_derivative",
]


class Attention(Function):
    """(query, key, value, out_dtype, options) -> (out, lse), differentiable in the first three, an
    additive attn_mask and sinks."""

    @staticmethod
    def forward(query: Any, key: Any, value: Any, out_dtype: str | None, *options: Any) -> Any:
        return operators.attention(query, key, value, out_dtype, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        query, key, value, _, *options = inputs
        tensors = options[: operators.TENSOR_OPTIONS]
        ctx.numbers = tuple(options[operators.TENSOR_OPTIONS :])
        ctx.save_for_backward(query, key, value, *output, *tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dout: Any, dlse: Any) -> Any:
        dq, dk, dv, dbias, dsinks = _gradients(ctx, dout, dlse, ctx.needs_input_grad[4])
        nothing = (None,) * (operators.TENSOR_OPTIONS - 2 + len(ctx.numbers))
        return (dq, dk, dv, None, dbias, dsinks, *nothing)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        _refuse_tangents()

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        query, options = args[0], args[4:]
        if _must_loop(options):
            return _one_by_one(Attention, info.batch_size, in_dims, args)
        fold = Fold(info.batch_size, query, in_dims[0], options[-1])
        rows = [fold.rows(x, d) for x, d in zip(args[:3], in_dims, strict=False)]
        mask = fold.mask(options[0], in_dims[4])
        out, lse = Attention.apply(*rows, args[3], mask, *options[1:])
        return (fold.unfold_rows(out), fold.unfold_rows(lse, 1)), (0, 0)


class EagerAttention(_SingleLevelFunction):
    """(query, key, value, attn_mask, sinks, (out_dtype, the other options)): the same where no
    transform and no compiler is about, or at one level of a transform. torch inspects the signature
    of a Function that has a setup_context at every call, and looks at each argument; so does its
    dispatcher, which has nothing to do for plain tensors."""

    apply: ClassVar[Any]

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        query, key, value, mask, sinks, rest = given
        inputs = query, key, value, rest[0], mask, sinks, *rest[1]
        tensors = query, key, value, mask, sinks, *rest[1][: operators.TENSOR_OPTIONS - 2]
        compute = operators.attention_kernel if _plain(tensors) else operators.attention
        output = compute(*inputs)
        Attention.setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, dout: Any, dlse: Any) -> Any:
        return (*_gradients(ctx, dout, dlse, ctx.needs_input_grad[3]), None)


def _plain(tensors: Any) -> bool:
    """Whether the kernels may have them without torch's dispatcher; None is none."""
    if adapter.recorded(thorough=True) or adapter.profiled() or adapter.transformed():
        return False
    return all(x is None or _is_its_memory(x) for x in tensors)


def _is_its_memory(x: torch.Tensor) -> bool:
    """No subclass, no lazy view, none of the zeros that have no memory, and none of the batches of
    torch.autograd's own vmap (is_grads_batched, functional.jacobian(vectorize=True))."""
    return (
        type(x) in adapter.PLAIN
        and (x.is_cpu or x.is_cuda)
        and not (x.is_neg() or x._is_zerotensor() or _is_batch(x))
    )


_is_batch = torch._C._functorch.is_legacy_batchedtensor


def _gradients(ctx: Any, dout: Any, dlse: Any, of_mask: bool) -> Any:
    """By query, key, value, attn_mask and sinks; None where there is none, or nobody asks."""
    saved = ctx.saved_tensors
    query, key, value, out, lse, *tensors = saved
    if dout is None and dlse is None:
        return (None,) * 5
    mask, sinks, *_ = tensors
    of_mask = of_mask and mask is not None and mask.dtype != torch.bool
    if dout is None:
        dout = torch.zeros_like(out)
    compute: Any = operators.attention_backward
    if adapter.transformed():
        compute = AttentionBackward.apply
    elif not torch.is_grad_enabled() and _plain((dout, dlse, *saved)):
        compute = operators.attention_backward_kernel
    dq, dk, dv, dbias, dsinks = compute(
        *(dout, query, key, value, out, lse, dlse, of_mask, *tensors, *ctx.numbers)
    )
    return (
        *(dq, dk, dv),
        dbias if of_mask else None,
        None if sinks is None else dsinks.to(sinks),
    )


class AttentionBackward(Function):
    """The gradients. It has none itself, and says so."""

    @staticmethod
    def forward(*args: Any) -> Any:
        return operators.attention_backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> NoReturn:
        raise NotImplementedError(
            "fanano's attention has no second derivative: call backward without create_graph, or "
            "use plain torch operations (sdpa_kernel(SDPBackend.MATH)) where you need it"
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        _refuse_tangents()

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        dlse, of_mask, *options = args[6:]
        if _must_loop(options):
            return _one_by_one(AttentionBackward, info.batch_size, in_dims, args)
        query, mask = args[1], options[0]
        fold = Fold(info.batch_size, query, in_dims[1], options[-1])
        rows = [fold.rows(x, d) for x, d in zip(args[:5], in_dims, strict=False)]
        lse = fold.rows(args[5], in_dims[5], 1)
        dlse = None if dlse is None else fold.rows(dlse, in_dims[6], 1)
        folded = fold.mask(mask, in_dims[8], of_each=of_mask)
        dq, dk, dv, dbias, dsinks = AttentionBackward.apply(
            *rows, lse, dlse, of_mask, folded, *options[1:]
        )
        if of_mask:
            dbias = fold.unfold_mask(dbias, mask, in_dims[8])
        found = [fold.unfold_rows(x) for x in (dq, dk, dv)]
        return (*found, dbias, dsinks), (0, 0, 0, 0 if of_mask else None, None)


def differentiable(*tensors: Any) -> bool:
    """Whether a derivative by one of them may be asked for; None is none."""
    if torch.is_grad_enabled():
        for x in tensors:
            if x is not None and x.requires_grad:
                return True
    return False


def refuse_derivative(argument: str) -> NoReturn:
    raise NotImplementedError(
        f"{argument} requires grad, and fanano's attention has no derivative by it: "
        f"pass {argument}.detach()"
    )


def _refuse_tangents() -> NoReturn:
    raise NotImplementedError(
        "fanano's attention has no forward derivatives (jvp, jacfwd, hessian): use backward, "
        "torch.func.grad, vjp or jacrev"
    )


# ---- of the bare operators, as graphs have them --------------------------------------------------


# torch calls these at each level of its transforms, too. What is left to do goes on to the keys
# below autograd's: a call would be one more in a profile.
def _attention(keys: Any, *inputs: Any) -> Any:
    query, key, value, out_dtype, mask, sinks, slopes, *others = inputs
    if adapter.has_tangents(query, key, value, mask, sinks):
        _refuse_tangents()
    if differentiable(slopes):
        refuse_derivative("alibi_slopes")
    if differentiable(query, key, value, mask, sinks):
        rest = out_dtype, (slopes, *others)
        if adapter.transformed():
            with enable_single_level_autograd_function():
                return EagerAttention.apply(query, key, value, mask, sinks, rest)
        return EagerAttention.apply(query, key, value, mask, sinks, rest)
    with torch._C._AutoDispatchBelowAutograd():
        return operators.attention.redispatch(keys & torch._C._after_autograd_keyset, *inputs)


def _attention_backward(keys: Any, *inputs: Any) -> Any:
    if differentiable(*inputs[:7]):
        return AttentionBackward.apply(*inputs)
    with torch._C._AutoDispatchBelowAutograd():
        return operators.attention_backward.redispatch(
            keys & torch._C._after_autograd_keyset, *inputs
        )


operators.library.impl("attention", _attention, "Autograd", with_keyset=True)
operators.library.impl("attention_backward", _attention_backward, "Autograd", with_keyset=True)


# ---- vmap ----------------------------------------------------------------------------------------


def _must_loop(options: Any) -> bool:
    """Whether there are options that are not rows of a batch: sinks, slopes, lengths, offsets."""
    return any(x is not None for x in options[1 : operators.TENSOR_OPTIONS])


def _one_by_one(function: Any, size: int, in_dims: Any, args: Any) -> Any:
    if size == 0:  # the shapes are those of an example, which is then taken away
        args = [x if d is None else _padded(x, d) for x, d in zip(args, in_dims, strict=True)]
    found = [
        function.apply(
            *(x if d is None else x.select(d, i) for x, d in zip(args, in_dims, strict=True))
        )
        for i in range(max(size, 1))
    ]
    together = tuple(torch.stack(x)[:size] for x in zip(*found, strict=True))
    return together, (0,) * len(together)


def _padded(x: Any, dim: int) -> Any:
    return x.new_zeros([1 if axis == dim % x.dim() else n for axis, n in enumerate(x.shape)])


class Fold:
    """The examples of a vmap as the batch of one call: (N, B, ...) as (N B, ...) and back."""

    def __init__(self, examples: int, query: Any, dim: int | None, layout: str) -> None:
        shape = list(query.shape)
        if dim is not None:
            del shape[dim]
        self.examples, self.rank = examples, len(shape)
        self.batch = shape[0] if self.rank == 4 else 1
        self.head_axis = 2 if layout == "bshd" else 1  # of the one head that rank 2 leaves out

    def rows(self, x: Any, dim: int | None, head_axis: int | None = None) -> Any:
        """query and its like; lse and its like have their head_axis at 1 in both layouts."""
        x = self._first(x, dim)
        if self.rank == 2:
            return x.unsqueeze(head_axis or self.head_axis)
        return x.flatten(0, 1) if self.rank == 4 else x

    def unfold_rows(self, x: Any, head_axis: int | None = None) -> Any:
        if self.rank == 2:
            return x.squeeze(head_axis or self.head_axis)
        return x.unflatten(0, (self.examples, self.batch)) if self.rank == 4 else x

    def mask(self, x: Any, dim: int | None, of_each: bool = False) -> Any:
        """of_each: its gradient is wanted of each example, so that it cannot be shared."""
        if x is None or (dim is None and not of_each and (x.dim() < 4 or x.shape[0] == 1)):
            return x
        x = self._first(x, dim)
        x = x.reshape(self.examples, *(1,) * (5 - x.dim()), *x.shape[1:])
        return x.expand(-1, self.batch, -1, -1, -1).flatten(0, 1)

    def unfold_mask(self, gradient: Any, mask: Any, dim: int | None) -> Any:
        shape = list(mask.shape)
        if dim is not None:
            del shape[dim]
        gradient = gradient.unflatten(0, (self.examples, self.batch))
        if len(shape) < 4 or shape[0] == 1:
            gradient = gradient.sum(1)
        return gradient.reshape(self.examples, *shape)

    def _first(self, x: Any, dim: int | None) -> Any:
        return x.expand(self.examples, *x.shape) if dim is None else x.movedim(dim, 0)
