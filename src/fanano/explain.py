"""``fanano.explain``: what a call of ``fanano.attention`` would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _core
from .adapters import common_adapter, diagnosis, prepared_option, prepared_seed
from .attention import dtype_name

__all__ = ["explain"]


def explain(
    query: Any,
    key: Any,
    value: Any,
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
    dropout_offset: Sequence[int] = (0, 0, 0, 0),
    q_lengths: Any = None,
    kv_lengths: Any = None,
    layout: str = "bhsd",
    algorithm: str = "flash",
    out_dtype: Any = None,
    backward: bool = False,
    grad_mask: bool = False,
) -> _core.Plan:
    """The plan for ``fanano.attention`` of the same arguments, which are checked; runs nothing.

    Args:
        backward: the plan for ``fanano.attention_backward`` instead.
        grad_mask: with ``backward``: also for the gradient by ``attn_mask``.

    Returns:
        A ``Plan``. ``print`` it to read which kernels would run, in which tiles, on how many
        threads and in how much memory. Its attributes: ``device``, ``isa``, ``algorithm``,
        ``heads`` (of a task: they share a key head), ``tile`` (query rows of each of them, keys of
        a tile), ``tasks``, ``threads``, ``scratch_bytes`` (of each thread) and ``workspace_bytes``
        (the scores that naive, safe and online store, or what decode keeps of keys that are split
        over threads, at most 64 MiB; else 0). With ``backward`` the tile has the rows that pass the
        keys together, tasks are key heads, or sums of dk and dv of each, and the workspace is those
        sums and three numbers of each row.

    Raises:
        What ``fanano.attention`` (or ``attention_backward``) raises for the same arguments.
    """
    if grad_mask and not backward:
        raise ValueError("grad_mask is an option of the backward pass: pass backward=True, too")
    adapter = common_adapter(query=query, key=key, value=value)
    if adapter.prepare is not None:
        query, key, value = adapter.prepare(("query", "key", "value"), (query, key, value))
    with diagnosis(adapter, query=query, key=key, value=value):
        return _core.explain(
            query,
            key,
            value,
            prepared_option("attn_mask", attn_mask),
            is_causal,
            window_size,
            prepared_option("q_offset", q_offset),
            scale,
            softcap,
            prepared_option("alibi_slopes", alibi_slopes),
            prepared_option("sinks", sinks),
            dropout_p,
            0 if seed is None else prepared_seed(seed),  # any would do
            dropout_offset,
            prepared_option("q_lengths", q_lengths),
            prepared_option("kv_lengths", kv_lengths),
            layout,
            algorithm,
            None if out_dtype is None else dtype_name(adapter, out_dtype),
            backward,
            grad_mask,
            adapter.max_threads(),
        )
