"""What fanano.torch.install() does for models that know nothing of it.

    python examples/install_speedup.py [--rows 2048] [--rounds 9]

Modules of torch, and a model of transformers where that is installed, each as torch computes it and
then with fanano under torch's own attention. Results are compared before anything is timed; rounds
are interleaved, so that a busy moment hits both. In evaluation torch's modules take a path of their
own past scaled_dot_product_attention: it is left on for torch, and switched off for fanano.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

import fanano.torch

Call = Callable[[], Any]
WIDTH, HEADS = 256, 4


@contextmanager
def with_fanano() -> Iterator[None]:
    mha: Any = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with fanano.torch.installed():
            yield
    finally:
        mha.set_fastpath_enabled(before)


def inferred(call: Call) -> Call:
    def infer() -> Any:
        with torch.inference_mode():
            return call()

    return infer


def trained(module: torch.nn.Module, call: Call) -> Call:
    """Forward, and the gradients of all weights."""

    def train() -> Any:
        out = call()
        return out.detach(), torch.autograd.grad(out.square().mean(), list(module.parameters()))

    return train


def cases(rows: int) -> Iterator[tuple[str, Call]]:
    x = torch.randn(1, rows, WIDTH)
    attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
    )
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(rows)

    def attend() -> torch.Tensor:
        return attention(x, x, x, need_weights=False)[0]

    def encode() -> torch.Tensor:
        return encoder(x, mask=causal, is_causal=True)

    for module, call in (attention, attend), (encoder, encode):
        name = type(module).__name__
        yield f"nn.{name}, training", trained(module.train(), call)
        yield f"nn.{name}, inference", inferred(in_evaluation(module, call))
    if find_spec("transformers"):
        model, ids = llama(), torch.randint(1, 64, (1, rows))
        run = lambda: model(ids, use_cache=False).logits  # noqa: E731
        yield "transformers' Llama, training", trained(model, run)
        yield "transformers' Llama, inference", inferred(run)


def in_evaluation(module: torch.nn.Module, call: Call) -> Call:
    def evaluate() -> Any:
        module.eval()
        try:
            return call()
        finally:
            module.train()

    return evaluate


def llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
    )
    config._attn_implementation = "sdpa"
    return LlamaForCausalLM(config)


def seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compared(call: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds by torch and by fanano, whose results are the same but for rounding."""
    expected = call()
    with with_fanano():
        torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4)
    by_torch, by_fanano = [], []
    for _ in range(rounds):
        by_torch.append(seconds(call))
        with with_fanano():
            by_fanano.append(seconds(call))
    return by_torch, by_fanano


def cell(times: list[float]) -> str:
    """The median in milliseconds, and how far the fastest and the slowest are from it."""
    middle = statistics.median(times)
    low, high = (100 * (x / middle - 1) for x in (min(times), max(times)))
    return f"{1e3 * middle:8.1f} ms {low:+4.0f}/{high:+.0f} %"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048, help="the length of the sequence")
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args(arguments)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, fanano {fanano.__version__}, {asked.rows} rows")
    for name, call in cases(asked.rows):
        by_torch, by_fanano = compared(call, asked.rounds)
        ratio = statistics.median(by_torch) / statistics.median(by_fanano)
        print(f"{name:34} torch {cell(by_torch)}  fanano {cell(by_fanano)}  {ratio:.2f}x")


if __name__ == "__main__":
    main()
