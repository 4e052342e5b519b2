"""Exact FlashAttention for every array library, on the machine you have.

The names below are the whole public interface. ``import fanano`` imports no array library: the
adapter of a library is loaded when one of its arrays arrives.
"""

from ._core import (
    Kernel,
    Plan,
    build_info,
    get_num_threads,
    kernels,
    set_num_threads,
    version,
)
from .attention import attention
from .attention_backward import Gradients, attention_backward
from .explain import explain
from .softmax import SoftmaxState, merge_states, softmax

__version__ = version()
del version

__all__ = [
    "Gradients",
    "Kernel",
    "Plan",
    "SoftmaxState",
    "__version__",
    "attention",
    "attention_backward",
    "build_info",
    "explain",
    "get_num_threads",
    "kernels",
    "merge_states",
    "set_num_threads",
    "softmax",
]
