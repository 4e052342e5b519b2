"""examples/train_gpt_torch.py: with fanano's attention a training is torch's but for rounding, and
bit for bit its own."""

from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="trains with torch")
pytest.importorskip("numpy", reason="the examples make their weights in NumPy")

import example_training as training  # noqa: E402
import train_gpt_torch  # noqa: E402
from example_training import SIZES, STEPS, gpt  # noqa: E402

import fanano  # noqa: E402
from fanano.adapters import torch as adapter  # noqa: E402

train = partial(train_gpt_torch.train, sizes=SIZES, steps=STEPS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """torch's sums depend on the number of its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ours():
    return train("fanano")


def test_the_losses_are_those_of_torch(ours, monkeypatch):
    expected = train("torch")
    training.learns(expected)
    training.same_curves(ours, expected, training.shaken(monkeypatch, partial(train, "torch")))


def test_the_bits_repeat_on_any_number_of_threads(ours, monkeypatch, threads):
    monkeypatch.setattr(adapter, "max_threads", lambda: 0)  # else as many as torch has
    for number in 1, 2:
        threads(number)
        assert fanano.get_num_threads() == number
        assert train("fanano") == ours


def test_dropout(ours, monkeypatch, threads):
    """Another curve, which falls too; its bits repeat."""
    monkeypatch.setattr(adapter, "max_threads", lambda: 0)
    threads(1)
    dropped = train("fanano", dropout=0.1)
    training.learns(dropped)
    assert dropped != ours
    threads(2)
    assert train("fanano", dropout=0.1) == dropped


def test_another_attention_is_another_curve(monkeypatch, ours):
    """The judgement sees a scale that is off by a hundredth."""
    of_torch = torch.nn.functional.scaled_dot_product_attention

    def off(*arrays, **options):
        return of_torch(*arrays, **options, scale=1.01 / SIZES.dim**0.5)

    monkeypatch.setitem(train_gpt_torch.ATTENTIONS, "torch", off)
    wrong = train("torch")
    noise = training.shaken(monkeypatch, partial(train, "torch"))
    with pytest.raises(AssertionError):
        training.same_curves(ours, wrong, noise)


def test_the_model_is_small(monkeypatch):
    """Under a million parameters, grouped heads; two examples share one text."""
    monkeypatch.setattr(gpt, "TEXTS", training.TEXTS)
    assert sum(x.size for x in gpt.parameters(gpt.Sizes(), 0).values()) < 1e6
    assert gpt.Sizes().heads > gpt.Sizes().kv_heads
    assert len(gpt.text()) > 20_000
    assert gpt.text().max() < gpt.CHARACTERS


def test_the_command(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: demo)")
    plot = tmp_path / "losses.svg"
    monkeypatch.setattr("sys.argv", ["train", "--steps", "2", "--plot", str(plot)])
    gpt.main("", tuple(train_gpt_torch.ATTENTIONS), train_gpt_torch.train)
    out = capsys.readouterr().out
    assert "largest difference of two losses of a step: " in out
    assert plot.read_text().startswith("<?xml")
