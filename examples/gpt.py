"""What the two training examples share: the model's sizes, the text, the batches, the plot."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
TEXTS = "README.md", "CONTRIBUTING.md", "RELEASING.md", "docs/*.md", "benchmarks/worklog/*.md"
CHARACTERS = 128  # ASCII; the few others count as "?"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sizes:
    """A GPT of 0.3 million parameters; two query heads share a key head."""

    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    dim: int = 24  # of a head
    context: int = 128
    batch: int = 8
    learning_rate: float = 2e-3

    @property
    def width(self) -> int:
        return self.heads * self.dim


def text() -> Array:
    """All that this repository says in Markdown, as numbers of characters."""
    files = [file for pattern in TEXTS for file in sorted(ROOT.glob(pattern))]
    content = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return np.frombuffer(content.encode("ascii", "replace"), np.uint8).astype(np.int64)


def batches(sizes: Sizes, steps: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Random pieces of the text, (batch, context), and what follows each of their characters."""
    characters, rng = text(), np.random.default_rng(seed)
    for _ in range(steps):
        starts = rng.integers(0, len(characters) - sizes.context - 1, (sizes.batch, 1))
        pieces = characters[starts + np.arange(sizes.context + 1)]
        yield pieces[:, :-1], pieces[:, 1:]


def parameters(sizes: Sizes, seed: int) -> dict[str, Array]:
    """float32 weights by name, for both libraries: the residual ones scaled as in GPT-2."""
    rng, width = np.random.default_rng(seed), sizes.width
    kv_width = sizes.kv_heads * sizes.dim
    shapes = {"characters": (CHARACTERS, width), "positions": (sizes.context, width)}
    for layer in range(sizes.layers):
        shapes |= {
            f"{layer}.qkv": (width, width + 2 * kv_width),
            f"{layer}.out": (width, width),
            f"{layer}.up": (width, 4 * width),
            f"{layer}.down": (4 * width, width),
        }
    found = {}
    for name, shape in shapes.items():
        scale = 0.02 / (2 * sizes.layers) ** 0.5 if name.endswith(("out", "down")) else 0.02
        found[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
    return found


def main(description: str, attentions: tuple[str, ...], train: Callable[..., list[float]]) -> None:
    """The command line of both: train(attention, sizes, steps, seed, dropout) gives the losses."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--attention", choices=attentions, help="default: each, and compare")
    parser.add_argument("--steps", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--dropout", type=float, default=0.0, help="in attention; default: 0")
    parser.add_argument("--plot", metavar="FILE", help="draw the losses (.png, .svg, .pdf)")
    arguments = parser.parse_args()
    curves = {}
    for name in [arguments.attention] if arguments.attention else attentions:
        start = time.perf_counter()
        losses = train(name, Sizes(), arguments.steps, arguments.seed, arguments.dropout)
        print(f"{name}: {time.perf_counter() - start:.1f} s, losses", end="")
        print("", *(f"{loss:.4f}" for loss in losses[:: max(1, len(losses) // 8)]), losses[-1])
        curves[name] = losses
    if len(curves) > 1:
        first, second = (np.array(losses) for losses in curves.values())
        print(f"largest difference of two losses of a step: {abs(first - second).max():.1e}")
    if arguments.plot:
        plot(curves, arguments.plot)
        print(f"plot: {arguments.plot}")


def plot(curves: dict[str, list[float]], file: str) -> None:
    """The losses, and below them how far the curves are apart."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for (name, losses), width in zip(curves.items(), (4, 1.5), strict=False):
        above.plot(losses, label=name, linewidth=width, alpha=0.7)
    above.set_ylabel("loss in nats a character")
    above.legend()
    if len(curves) > 1:
        first, second = (np.array(losses) for losses in curves.values())
        below.semilogy(np.maximum(abs(first - second), 1e-9))
    below.set_ylabel("difference")
    below.set_xlabel("step")
    for panel in (above, below):
        panel.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
