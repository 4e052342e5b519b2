"""The steps of the ladder below attention: softmax three ways, its state, and merging."""

from __future__ import annotations

from typing import Any

from . import _core
from .adapters import adapter_of, common_adapter, diagnosis

__all__ = ["SoftmaxState", "merge_states", "softmax"]


def softmax(x: Any, axis: int = -1, algorithm: str = "online") -> Any:
    """``exp(x) / sum(exp(x))`` along one axis, in three ways.

    Args:
        x: an array of one axis or more, any strides: float64, float32, bfloat16 or float16.
        axis: the axis along which results sum to 1; negative numbers count from the last.
        algorithm: ``"naive"`` takes the exponentials as they are: two passes, and NaN where they
            overflow (in float32 beyond about 88) or all vanish. ``"safe"`` subtracts the row's
            maximum first: three passes. ``"online"`` finds maximum and sum in one pass, rescaling
            the sum when the maximum grows: two passes.

    Returns:
        An array of the caller's library, of the shape and dtype of ``x``. A row of -inf alone gives
        zeros, and NaN in ``"naive"``.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        NotImplementedError: a torch tensor requires grad, a JAX array is traced, or an array is one
            of CuPy's.

    Source: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"
    (arXiv:1805.02867).
    """
    adapter = adapter_of("x", x)
    if adapter.prepare is not None:
        (x,) = adapter.prepare(("x",), (x,))
    finish = None if adapter.finisher is None else adapter.finisher(x)
    with diagnosis(adapter, x=x):
        result: Any = _core.softmax(x, axis, algorithm, adapter.empty, adapter.max_threads())
    return result if finish is None else finish(result)


class SoftmaxState:
    """The state of an online softmax: all that is needed to know of the scores seen so far.

    States are values: ``absorb`` and ``merge`` return a new one and leave theirs as it was; those
    of equal ``m`` and ``l`` are equal; they can be copied and pickled. They form a monoid, with
    ``SoftmaxState()`` as its unit, so a row may be cut anywhere and put together again in any
    order:

    >>> import numpy as np
    >>> a = np.array([0.1, 0.5, 0.4, 0.2, 0.3, 0.3])
    >>> first, second = SoftmaxState().absorb(a[:3]), SoftmaxState().absorb(a[3:])
    >>> round(first.l, 5), round(second.l, 5), round(first.merge(second).l, 5)
    (2.57516, 2.90484, 4.95344)

    Attributes (natural units, Python floats):
        m: the maximum of the scores, -inf for none.
        l: the sum of ``exp(score - m)``, 0 for none.
        lse: ``m + log(l)``, -inf for none.

    Source: Milakov and Gimelshein 2018 (arXiv:1805.02867), section 3.1.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _core.State()

    def absorb(self, scores: Any) -> SoftmaxState:
        """The state after these scores, a 1-D array of any library and one of the four dtypes.

        Raises:
            TypeError, ValueError: ``scores`` is no such array.
        """
        adapter = adapter_of("scores", scores)
        if adapter.prepare is not None:
            (scores,) = adapter.prepare(("scores",), (scores,))
        with diagnosis(adapter, scores=scores):
            return self._with(self._state.absorb(scores))

    def merge(self, other: SoftmaxState) -> SoftmaxState:
        """The state of both parts of a row.

        Raises:
            TypeError: ``other`` is not a SoftmaxState.
        """
        if not isinstance(other, SoftmaxState):
            raise TypeError(f"other must be a SoftmaxState, got {type(other).__name__}")
        return self._with(self._state.merge(other._state))

    @property
    def m(self) -> float:
        """The maximum of the scores; -inf for none."""
        return self._state.m

    @property
    def l(self) -> float:  # noqa: E743  the paper's letter
        """The sum of ``exp(score - m)``; 0 for none."""
        return self._state.l

    @property
    def lse(self) -> float:
        """The natural logarithm of the sum of ``exp(score)``; -inf for none."""
        return self._state.lse

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SoftmaxState):
            return NotImplemented
        return (self.m, self.l) == (other.m, other.l)

    def __hash__(self) -> int:
        return hash((self.m, self.l))

    def __getstate__(self) -> tuple[float, float]:
        return self.m, self.l

    def __setstate__(self, state: tuple[float, float]) -> None:
        self._state = _core.State(*state)

    def __repr__(self) -> str:
        return f"SoftmaxState(m={self.m}, l={self.l})"

    @staticmethod
    def _with(state: _core.State) -> SoftmaxState:
        made = SoftmaxState.__new__(SoftmaxState)
        made._state = state
        return made


def merge_states(out_a: Any, lse_a: Any, out_b: Any, lse_b: Any) -> tuple[Any, Any]:
    """Attention over two sets of keys, from the attention over each: exact up to rounding.

    Args:
        out_a, out_b: (..., Dv), of one shape and dtype; best made with ``out_dtype="float32"``.
        lse_a, lse_b: (...), their log-sum-exps in natural units: float32 (float64 for float64).

    Returns:
        The tuple (out, lse), of the same library, shapes and dtypes. A row that is empty (-inf) in
        both parts is 0, with a log-sum-exp of -inf.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.
        NotImplementedError: a torch tensor requires grad, a JAX array is traced, or an array is one
            of CuPy's.
    """
    arrays: Any = {"out_a": out_a, "lse_a": lse_a, "out_b": out_b, "lse_b": lse_b}
    adapter = common_adapter(**arrays)
    if adapter.prepare is not None:
        prepared = adapter.prepare(tuple(arrays), tuple(arrays.values()))
        arrays = dict(zip(arrays, prepared, strict=True))
    finish = None if adapter.finisher is None else adapter.finisher(out_a)
    with diagnosis(adapter, **arrays):
        out, lse = _core.merge_states(
            **arrays, empty=adapter.empty, max_threads=adapter.max_threads()
        )
    return (out, lse) if finish is None else (finish(out), finish(lse))
