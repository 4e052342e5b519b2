"""fanano for PyTorch: differentiable, compiled, transformed; and in the place of torch's own.

Importing this imports torch. Tensors may be on the CPU or on CUDA devices (docs/torch.md).
"""

from __future__ import annotations

from typing import Any

import torch

from .calls import dispatch
from .installing import install, installed, is_installed, uninstall
from .sdpa import scaled_dot_product_attention

__all__ = [
    "attention",
    "install",
    "installed",
    "is_installed",
    "scaled_dot_product_attention",
    "uninstall",
]


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: Any = None,
    is_causal: bool = False,
    window_size: tuple[int | None, int | None] | None = None,
    q_offset: Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    dropout_p: float = 0.0,
    seed: Any = None,
    dropout_offset: Any = (0, 0, 0, 0),
    q_lengths: Any = None,
    kv_lengths: Any = None,
    return_lse: bool = False,
    layout: str = "bhsd",
    algorithm: str = "flash",
    out_dtype: torch.dtype | str | None = None,
    out: torch.Tensor | None = None,
) -> Any:
    """``fanano.attention`` with torch's autograd, compiler, transforms and autocast.

    Options, shapes, dtypes and results are those of ``fanano.attention``. Differentiable in
    ``query``, ``key``, ``value``, an additive ``attn_mask`` and ``sinks``, through the output and,
    with ``return_lse``, through the log-sum-exp; gradients have the shapes and dtypes of what they
    are by. Nothing quadratic in the sequence is kept for the backward pass: the inputs, the output
    and the log-sum-exp are.

    Works in eager mode and in ``torch.compile`` (whole graphs, dynamic shapes), ``torch.export``,
    ``make_fx``, ``torch.func.grad``, ``vjp`` and ``vmap``, ``torch.utils.checkpoint``, and on meta
    and fake tensors. Under ``torch.autocast`` query, key and value of 16 or 32 bits become
    of its dtype, as those of torch's own attention do. A plain tensor that nothing watches goes to
    the kernel directly, at the cost of ``fanano.attention``.

    Without a ``seed``, dropout takes one from torch's generator of the device, which
    ``torch.manual_seed`` sets and a checkpoint sets back. Under ``vmap`` each example is dropped
    from as if it were alone; its own ``randomness`` decides whether seeds are shared. Dropout
    there, and ``sinks``, ``alibi_slopes``, lengths and offsets that are tensors, make one call for
    each example; else there is one for all.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it. In a compiled function
            most of them come when it runs. ``out`` together with gradients, transforms or tracing.
        NotImplementedError: a second derivative; forward-mode derivatives; ``scale``,
            ``softcap`` or ``alibi_slopes`` that require grad; with gradients, transforms or
            tracing, any ``algorithm`` but ``"flash"``.
        RuntimeError: torch's, if an input was changed in place before the backward pass.

    Sources: as for ``fanano.attention`` and ``fanano.attention_backward``.
    """
    return dispatch(
        query,
        key,
        value,
        attn_mask=attn_mask,
        is_causal=is_causal,
        window_size=window_size,
        q_offset=q_offset,
        scale=scale,
        softcap=softcap,
        alibi_slopes=alibi_slopes,
        sinks=sinks,
        dropout_p=dropout_p,
        seed=seed,
        dropout_offset=dropout_offset,
        q_lengths=q_lengths,
        kv_lengths=kv_lengths,
        return_lse=return_lse,
        layout=layout,
        algorithm=algorithm,
        out_dtype=out_dtype,
        out=out,
    )
