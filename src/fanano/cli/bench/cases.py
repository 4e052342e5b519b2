"""What is measured: the shapes of each group. The command line needs them before NumPy is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
# The last place of 1.
UNIT = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10, "float64": 2.0**-52}
DTYPES = tuple(ITEM_BYTES)
OTHERS_DTYPES = DTYPES[:3]  # what others compute, too
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
SIZES = tuple(
    square(1, 8, tokens, dim) for dim in (32, 64, 80, 96, 128, 256) for tokens in (2048, 512)
)
OPTIONS = tuple(square(1, 8, tokens, dim) for tokens in (2048, 512) for dim in (64, 128))
MEMORY = (square(1, 8, 8192, 64),)

FULL = {
    "prefill": PREFILL,
    "decode": DECODE,
    "backward": BACKWARD,
    "call": CALL,
    "sizes": SIZES,
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
    "sizes": tuple(square(1, 8, 512, dim) for dim in (64, 96)),
    "options": (square(1, 8, 512, 64),),
    "memory": (square(1, 8, 2048, 64),),
}
GROUPS = tuple(FULL)
GROUP_DTYPES = dict.fromkeys(GROUPS, OTHERS_DTYPES) | {"sizes": DTYPES}


def paper(dims: Sequence[int], lengths: Sequence[int]) -> tuple[Case, ...]:
    """The grid of the FlashAttention papers: 2048 columns in all heads, 16384 tokens in all."""
    return tuple(
        square(16384 // tokens, 2048 // dim, tokens, dim, causal)
        for dim in dims
        for causal in (False, True)
        for tokens in lengths
    )


PAPER_LENGTHS = 512, 1024, 2048, 4096, 8192, 16384
PAPER = paper((64, 128, 256), PAPER_LENGTHS)
CUDA_FULL = {
    "prefill": PAPER,
    "decode": tuple(
        Case(batch, 32, kv_heads, 1, keys, 128)
        for kv_heads in (8, 32)
        for batch, keys in ((1, 16384), (8, 8192), (64, 4096))
    ),
    # Without 256 columns: their gradients only the general kernel takes, which is slow, and a run
    # of so many seconds would spend them there.
    "backward": paper((64, 128), PAPER_LENGTHS),
}
QUICK_PAPER = paper((64, 128), (1024, 8192))
CUDA_QUICK = {
    "prefill": QUICK_PAPER,
    "decode": (Case(8, 32, 8, 1, 8192, 128),),
    "backward": QUICK_PAPER,
}
CUDA_GROUPS = tuple(CUDA_FULL)
CUDA_DTYPES = "bfloat16", "float16"


def chosen(
    groups: Sequence[str], dtypes: Sequence[str], quick: bool, device: str = "cpu"
) -> list[tuple[str, Case]]:
    """The cases of the groups in their order, each in every dtype that the group has. On CUDA the
    groups take turns: a run that ends early has something of each."""
    tables = {"cpu": (FULL, QUICK), "cuda": (CUDA_FULL, CUDA_QUICK)}
    table = tables[device][quick]
    of_groups = [
        [
            (group, replace(case, dtype=dtype))
            for dtype in GROUP_DTYPES[group]
            if dtype in dtypes
            for case in table[group]
        ]
        for group in GROUPS
        if group in groups
    ]
    if device == "cpu":
        return list(chain.from_iterable(of_groups))
    return [one for turn in zip_longest(*of_groups) for one in turn if one]
