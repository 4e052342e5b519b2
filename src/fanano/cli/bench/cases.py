"""What is measured: the shapes of each group. The command line needs them before NumPy is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
UNIT = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}  # the last place of 1
DTYPES = tuple(ITEM_BYTES)
NONE = "none"  # the call without any option, in the group of options


@dataclass(frozen=True)
class Case:
    """One attention call: query (batch, heads, rows, dim), key and value (batch, kv_heads, ...)."""

    batch: int
    heads: int
    kv_heads: int
    rows: int
    keys: int
    dim: int
    causal: bool = False
    dtype: str = "float32"

    def __str__(self) -> str:
        heads = f"{self.heads}" if self.heads == self.kv_heads else f"{self.heads}/{self.kv_heads}"
        rows = f"{self.keys}" if self.rows == self.keys else f"{self.rows} over {self.keys}"
        return f"({self.batch}, {heads}, {rows}, {self.dim})"

    @property
    def gflop(self) -> float:
        """Two products of rows x keys x dim; causal: the pairs on and below the diagonal."""
        pairs = self.rows * self.keys
        if self.causal:
            pairs -= self.rows * (self.rows - 1) // 2
        return 4 * self.batch * self.heads * pairs * self.dim / 1e9

    @property
    def backward_gflop(self) -> float:
        """Five such products: the scores again, and those of dP, dV, dQ and dK."""
        return 2.5 * self.gflop

    @property
    def kv_bytes(self) -> int:
        elements = 2 * self.batch * self.kv_heads * self.keys * self.dim
        return elements * ITEM_BYTES[self.dtype]

    @property
    def output_bytes(self) -> int:
        return self.batch * self.heads * self.rows * self.dim * ITEM_BYTES[self.dtype]


def square(batch: int, heads: int, tokens: int, dim: int, causal: bool = False) -> Case:
    return Case(batch, heads, heads, tokens, tokens, dim, causal)


PREFILL = (
    *(square(1, 8, 2048, dim, causal) for dim in (64, 128) for causal in (False, True)),
    *(square(4, 12, 128, 32, causal) for causal in (False, True)),
    Case(1, 32, 8, 512, 512, 128, causal=True),
)
DECODE = (
    Case(1, 32, 8, 1, 8192, 128),
    Case(4, 32, 8, 1, 4096, 128),
    Case(1, 32, 32, 1, 4096, 128),
)
CALL = (Case(1, 1, 1, 1, 1, 64),)
BACKWARD = PREFILL
OPTIONS = tuple(square(1, 8, tokens, dim) for tokens in (2048, 512) for dim in (64, 128))
MEMORY = (square(1, 8, 8192, 64),)

FULL = {
    "prefill": PREFILL,
    "decode": DECODE,
    "backward": BACKWARD,
    "call": CALL,
    "options": OPTIONS,
    "memory": MEMORY,
}
QUICK_PREFILL = (
    *(square(1, 8, 512, 64, causal) for causal in (False, True)),
    Case(1, 8, 2, 512, 512, 64, causal=True),
)
QUICK = {
    "prefill": QUICK_PREFILL,
    "decode": (Case(1, 32, 8, 1, 4096, 128),),
    "backward": QUICK_PREFILL,
    "call": CALL,
    "options": (square(1, 8, 512, 64),),
    "memory": (square(1, 8, 2048, 64),),
}
GROUPS = tuple(FULL)


def chosen(groups: Sequence[str], dtypes: Sequence[str], quick: bool) -> list[tuple[str, Case]]:
    """The cases of the groups in their order, each in every dtype."""
    table = QUICK if quick else FULL
    return [
        (group, replace(case, dtype=dtype))
        for group in GROUPS
        if group in groups
        for dtype in dtypes
        for case in table[group]
    ]
