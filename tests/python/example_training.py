"""The examples of training, small enough to repeat, and how far apart two trainings may come."""

import sys
from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import gpt  # noqa: E402

# A text that does not change with every page that is written; TEXTS is the examples' own.
TEXTS, gpt.TEXTS = gpt.TEXTS, ("LICENSE",)

SIZES = gpt.Sizes(layers=2, dim=16, context=64, batch=3)
STEPS = 30


def shaken(monkeypatch, train):
    """The losses of three trainings whose first weights were each moved by their last place: what
    the noise of float32 comes to over the steps. Some steps multiply it a hundred times, for any
    training of these batches."""
    weights, rng = gpt.parameters, np.random.default_rng(7)

    def moved(sizes, seed):
        return {
            name: np.nextafter(x, rng.choice(np.float32([-1, 1]), x.shape))
            for name, x in weights(sizes, seed).items()
        }

    with monkeypatch.context() as patch:
        patch.setattr(gpt, "parameters", moved)
        return [train() for _ in range(3)]


def same_curves(losses, expected, noise):
    """Two curves are apart no more than 4 times as far as noise takes one of them."""
    losses, expected, noise = map(np.array, (losses, expected, noise))
    floor = 4 * np.spacing(np.float32(expected.max()))  # the loss itself is rounded
    assert abs(losses - expected).max() <= 4 * abs(noise - expected).max() + floor


def learns(losses):
    """From no knowledge, log 128, to less."""
    assert abs(losses[0] - np.log(gpt.CHARACTERS)) < 0.1
    assert np.mean(losses[-5:]) < losses[0] - 0.8
