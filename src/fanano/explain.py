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
) -> _core.Plan:
    """The plan for ``fanano.attention`` of the same arguments, which are checked; runs nothing.

    Returns:
        A ``Plan``. ``print`` it to read which kernels would run, in which tiles, on how many
        threads and in how much memory. Its attributes: ``device``, ``isa``, ``algorithm``,
        ``heads`` (of a task: they share a key head), ``tile`` (query rows of each of them, keys of
        a tile), ``tasks``, ``threads``, ``scratch_bytes`` (of each thread) and ``workspace_bytes``
        (the scores that naive, safe and online store, or what decode keeps of keys that are split
        over threads, at most 64 MiB; else 0).

    Raises:
        What ``fanano.attention`` raises for the same arguments.
    """
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
            adapter.max_threads(),
        )
