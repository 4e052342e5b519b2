"""examples/train_gpt_jax.py: the same training in JAX, by its own attention and by fanano's."""

from functools import partial

import pytest

pytest.importorskip("numpy", reason="the examples make their weights in NumPy")
jax = pytest.importorskip("jax", reason="trains with JAX")

import example_training as training  # noqa: E402
import train_gpt_jax  # noqa: E402
from example_training import SIZES, STEPS  # noqa: E402

train = partial(train_gpt_jax.train, sizes=SIZES, steps=STEPS)


@pytest.fixture(scope="module")
def expected():
    return train("jax")


def test_it_learns_and_its_bits_repeat(expected):
    training.learns(expected)
    assert train("jax") == expected


def test_the_losses_are_those_of_jax(expected, monkeypatch, threads):
    threads(1)
    ours = train("fanano")
    noise = training.shaken(monkeypatch, partial(train, "jax"))
    training.same_curves(ours, expected, noise)
    threads(2)
    assert train("fanano") == ours


def test_it_is_the_model_of_torch():
    """Both libraries start from the same loss, of the same weights and batch."""
    pytest.importorskip("torch", reason="compares with the example in torch")
    import train_gpt_torch

    first = [
        x.train(name, SIZES, 1)[0]
        for x, name in ((train_gpt_torch, "torch"), (train_gpt_jax, "jax"))
    ]
    assert first[0] == pytest.approx(first[1], abs=2e-6)


def test_dropout(threads):
    """Another curve, which falls too; its bits repeat."""
    threads(1)
    dropped = train("fanano", dropout=0.1)
    training.learns(dropped)
    assert dropped != train("fanano")
    threads(2)
    assert train("fanano", dropout=0.1) == dropped
    with pytest.raises(SystemExit, match=r"jax\.nn\.dot_product_attention has none"):
        train("jax", dropout=0.1)
