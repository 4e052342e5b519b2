"""``fanano.attention``: defaults, the choice of adapter, and the documentation. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _core
from .adapters import Adapter, Watched, adapter_of, common_adapter, prepared_option, prepared_seed

__all__ = ["attention"]


def attention(
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
    return_lse: bool = False,
    layout: str = "bhsd",
    algorithm: str = "flash",
    out_dtype: Any = None,
    out: Any = None,
) -> Any:
    """Exact attention: ``softmax(scale * query @ key.T) @ value``, for every batch and head.

    ``query`` is (B, Hq, Sq, D), ``key`` (B, Hkv, Sk, D), ``value`` (B, Hkv, Sk, Dv), all of one
    library and one dtype: float64, float32, bfloat16 (NumPy: ``ml_dtypes.bfloat16``) or float16.
    With ``layout="bshd"`` rows stand before heads. (H, S, D), (S, H, D) and (S, D) work too. Any
    strides.
    ``Hq`` must be a multiple of ``Hkv``: query head ``h`` uses key head ``h // (Hq // Hkv)``.
    ``1 <= D <= 576`` and ``0 <= Dv <= 576``. Sums are made in float32 (float64 for float64).

    A score passes through ``scale``, ``softcap``, ``alibi_slopes``, an additive ``attn_mask`` and
    then every mask, in this order. What lies behind a mask never reaches a result, NaN included.

    Args:
        attn_mask: an array that broadcasts from the right against (B, Hq, Sq, Sk), in both layouts.
            bool: True may attend. Of the four floating dtypes: added to the scores, -inf hides.
        window_size: ``(left, right)``: row ``i``, at position ``p = i + q_offset``, sees the keys
            ``p - left <= j <= p + right``; None or a negative number: no bound on that side.
        softcap: a score ``s`` becomes ``softcap * tanh(s / softcap)``; None or 0: it does not.
        alibi_slopes: (Hq,) or (B, Hq): ``slope * |p - j|`` is subtracted. Floats, or lists of them.
        sinks: (Hq,) logits that join the sum of exponentials and own no value; -inf: none.
        is_causal: query row ``i`` sees the keys ``j <= i + q_offset``.
        q_offset: the key position of query row 0, an integer or one for each sequence. None:
            ``kv_length - q_length`` of each sequence, which lets the last query see the last key.
        scale: what scores are multiplied by, any finite number; None: ``1 / sqrt(D)``.
        q_lengths, kv_lengths: how many rows of each sequence of a right-padded batch are used,
            int32 or int64, (B,). Padded keys are not read; padded query rows
            give 0, with a log-sum-exp of -inf.
        return_lse: also return the logarithm (natural) of each row's sum of exponentials, float32
            (float64 for float64): (B, Hq, Sq), heads before rows in both layouts.
        layout: ``"bhsd"`` or ``"bshd"``.
        algorithm: ``"flash"`` (online softmax over tiles, memory linear in the sequence), or one
            that stores all B x Hq x Sq x Sk scores: ``"naive"``, ``"safe"``, ``"online"``.
        out_dtype: ``"float32"`` for unrounded partial results, to be merged by ``merge_states``.
        out: the array to write, of the result's shape; it must not overlap an input.
        dropout_p: the probability, 0 to 1, with which a pair of a query and a key is dropped: its
            probability becomes 0, and that of the others is multiplied by ``1 / (1 - dropout_p)``.
            The log-sum-exp is that of before.
        seed: which pairs: an integer of 64 bits, or an array of one (on the device of ``query``, if
            it is one, it is read when the kernels run). None: drawn anew, from torch's generator of
            the device for its tensors; an error for JAX's arrays.
        dropout_offset: where this call's first pair stands, (batch, head, row, column), if it is a
            part of a larger problem. Whether a pair is dropped is a function of the seed and of its
            place (Philox4x32-10), however calls, tiles, threads and devices share the work.

    Returns:
        (B, Hq, Sq, Dv) in the layout, rank, library and dtype of ``query``; with ``return_lse`` a
        tuple of it and the log-sum-exp. A row that sees no key is 0, with a log-sum-exp of its
        sink, or -inf without one.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it. Nothing was written.
            Lengths are checked number by number, at every call; on a device they are clamped.
        NotImplementedError: dropout in an algorithm that stores scores; no CUDA kernel takes what
            is on a device, or none can run. Of torch tensors also what fanano.torch.attention says,
            of traced JAX arrays what fanano.jax.attention does.

    Arrays on a CUDA device (docs/arrays.md) are computed there, on their library's current stream:
    the call does not wait for it, and what is on the device is not looked at.

    Torch tensors that require grad, are transformed by torch.func, or are traced or compiled, are
    taken to ``fanano.torch.attention``: the result is differentiable where that is. JAX arrays that
    are traced (jit, grad, vmap ...) are taken to ``fanano.jax.attention``.

    Memory that another thread frees, resizes or writes during the call, and arrays that lie about
    where their memory is, cannot be guarded against: they crash or give wrong numbers.

    Sources: Dao et al. 2022, "FlashAttention" (arXiv:2205.14135); softcap: Gemma Team 2024, "Gemma
    2" (arXiv:2408.00118), section 2; ALiBi: Press et al. 2022 (arXiv:2108.12409), section 3; sinks:
    Xiao et al. 2024 (arXiv:2309.17453), section 3; dropout's numbers: Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3", section 4.
    """
    if type(query) is type(key) is type(value):
        adapter = adapter_of("query", query)
    else:
        adapter = common_adapter(query=query, key=key, value=value)
    given = query, key, value
    watched_attention = None
    try:
        if adapter.prepare is not None:
            query, key, value = adapter.prepare(("query", "key", "value"), given)
        if out is not None:
            common_adapter(query=query, out=out).check_out(out)
        if out_dtype is not None:
            out_dtype = dtype_name(adapter, out_dtype)
        finish = None
        if adapter.finisher is not None and (out is None or return_lse):
            finish = adapter.finisher(query)
        # Small calls are mostly questions: none is asked about an option that was not given.
        result: Any = _core.attention(
            query,
            key,
            value,
            out,
            adapter.empty,
            return_lse,
            None if attn_mask is None else prepared_option("attn_mask", attn_mask, query),
            is_causal,
            window_size,
            None if q_offset is None else prepared_option("q_offset", q_offset, query),
            None if scale is None else prepared_option("scale", scale),
            None if softcap is None else prepared_option("softcap", softcap),
            None if alibi_slopes is None else prepared_option("alibi_slopes", alibi_slopes, query),
            None if sinks is None else prepared_option("sinks", sinks, query),
            dropout_p if type(dropout_p) is float else prepared_option("dropout_p", dropout_p),
            _seed(adapter, seed, query) if dropout_p != 0 or seed is not None else None,
            dropout_offset,
            None if q_lengths is None else prepared_option("q_lengths", q_lengths, query),
            None if kv_lengths is None else prepared_option("kv_lengths", kv_lengths, query),
            layout,
            algorithm,
            out_dtype,
            adapter.max_threads(),
            None if adapter.stream is None else adapter.stream(query),
        )
    except Watched as watched:
        _, library, watched_attention = watched.args
        if library != adapter.library:  # a mask of another library than query
            raise
    except (TypeError, ValueError):
        if adapter.diagnose is not None:
            adapter.diagnose(True, query=query, key=key, value=value, out=out)
        raise
    if watched_attention is not None:
        return watched_attention(
            *given,
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
    if out is not None and adapter.written is not None:
        adapter.written(out)
    if finish is None:
        return result
    if not return_lse:
        return finish(result)
    made, lse = result
    return made if out is not None else finish(made), finish(lse)


def _seed(adapter: Adapter, seed: Any, query: Any) -> Any:
    return adapter.fresh_seed(query) if seed is None else prepared_seed(seed, query)


def dtype_name(adapter: Adapter, out_dtype: Any) -> str:
    """The name of ``out_dtype``, which may be one already or a dtype of the caller's library."""
    return out_dtype if isinstance(out_dtype, str) else adapter.dtype_name(out_dtype)
