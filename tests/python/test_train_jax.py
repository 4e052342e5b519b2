"""examples/train_gpt_jax.py: the same training in JAX, by its own attention and by fanano's."""

from functools import partial
from importlib.util import find_spec

import pytest

pytest.importorskip("numpy", reason="the examples make their weights in NumPy")
jax = pytest.importorskip("jax", reason="trains with JAX")

import example_training as training  # noqa: E402
import train_gpt_jax  # noqa: E402
from example_training import SIZES, STEPS, gpt  # noqa: E402

train = partial(train_gpt_jax.train, sizes=SIZES, steps=STEPS)
THERE = find_spec("fanano.jax") is not None


@pytest.fixture(scope="module")
def expected():
    return train("jax")


def test_it_learns_and_its_bits_repeat(expected):
    training.learns(expected)
    assert train("jax") == expected


@pytest.mark.skipif(not THERE, reason="this fanano has no fanano.jax")
def test_the_losses_are_those_of_jax(expected, monkeypatch, threads):
    threads(1)
    ours = train("fanano")
    noise = training.shaken(monkeypatch, partial(train, "jax"))
    training.same_curves(ours, expected, noise)
    threads(2)
    assert train("fanano") == ours


@pytest.mark.skipif(THERE, reason="there is a fanano.jax to train with")
def test_without_fanano_jax():
    with pytest.raises(SystemExit, match=r"this fanano has no fanano\.jax .*use --attention jax"):
        train("fanano")


def test_it_is_the_model_of_torch():
    """Both libraries start from the same loss, of the same weights and batch."""
    pytest.importorskip("torch", reason="compares with the example in torch")
    import train_gpt_torch

    first = [
        x.train(name, SIZES, 1)[0]
        for x, name in ((train_gpt_torch, "torch"), (train_gpt_jax, "jax"))
    ]
    assert first[0] == pytest.approx(first[1], abs=2e-6)


def test_dropout_is_refused():
    with pytest.raises(SystemExit, match=r"jax\.nn\.dot_product_attention has none"):
        train_gpt_jax.train("jax", gpt.Sizes(), 1, dropout=0.1)
