"""attn_implementation="fanano" in models of transformers: the same tokens, states and gradients.

Judged in float64 by transformers' own attention by sdpa, or by hand where that lacks an option.
"""

import functools
import runpy
from pathlib import Path

import pytest
import torch
import transformers
from test_torch_sdpa import kernels  # noqa: F401  (a fixture)
from transformers_models import DECODERS, by, model, one_thread, padded, tokens

import fanano.torch
import fanano.transformers
from fanano.transformers import layers

fanano.transformers.register()
fanano.transformers.register()

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
close = functools.partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)


@pytest.fixture
def masks(monkeypatch):
    """The shapes of the masks that fanano computed with, as it happens."""
    seen = []
    real = layers.fanano_attention

    def attention(*args, attn_mask, **options):
        seen.append(None if attn_mask is None else tuple(attn_mask.shape))
        return real(*args, attn_mask=attn_mask, **options)

    monkeypatch.setattr(layers, "fanano_attention", attention)
    return seen


def generated(model, **options):
    out = model.generate(
        tokens(),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    return out.sequences, torch.stack(out.logits)


@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", DECODERS)
def test_generation(name, cache, padding, masks):
    m = model(name)
    options = {"attention_mask": padded(padding) if padding else torch.ones_like(tokens())}
    if cache == "static":
        options["cache_implementation"] = cache
    call = functools.partial(generated, m, **options)
    expected = by(m, m.reference, call)
    assert masks == []
    got = by(m, "fanano", call)
    assert torch.equal(got[0], expected[0])
    close(got, expected)
    assert len(set(got[0][:, 9:].flatten().tolist())) > 6  # no model that says one thing
    assert len(masks) == 2 * 6  # every layer, every step
    assert all(shape is None or shape[-2] == 1 for shape in masks)  # nothing of (L, S)
    if padding is None and cache == "dynamic" and name == "llama":
        assert set(masks) == {None}


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_an_encoder_and_a_decoder(cache, masks):
    """T5: position biases, attention from one to the other, padding in it."""
    m = model("t5")
    options = {"attention_mask": padded("right")}
    if cache == "static":
        options["cache_implementation"] = cache
    call = functools.partial(generated, m, **options)
    close(by(m, "fanano", call), by(m, "sdpa", call))
    assert len(masks) == 1 + 2 * 6


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_an_encoder(side, masks):
    m = model("bert")
    call = lambda: m(tokens(), attention_mask=side and padded(side)).last_hidden_state  # noqa: E731
    close(by(m, "fanano", call), by(m, "sdpa", call))
    assert masks == ([(3, 1, 1, 9)] * 2 if side else [None] * 2)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", DECODERS)
def test_training(name, side):
    """Gradients of all weights, sinks among them; the layers are computed twice."""
    m = model(name)
    shown = padded(side)
    labels = torch.where(shown > 0, tokens(), -100)
    m.train()
    getattr(m, "activation_checkpointing_enable", m.gradient_checkpointing_enable)()

    def call():
        m.zero_grad()
        out = m(tokens(), attention_mask=shown, labels=labels, use_cache=False)
        out.loss.backward()
        gradients = {k: p.grad.clone() for k, p in m.named_parameters() if p.grad is not None}
        return out.loss.detach(), out.logits.detach()[shown > 0], gradients

    got, expected = by(m, "fanano", call), by(m, m.reference, call)
    close(got, expected)
    assert any("sinks" in k for k in got[2]) == (name == "gpt-oss")


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt-oss"])
def test_a_prompt_in_pieces(name, padding, cache, masks):
    """Several queries behind keys that are in the cache already."""
    m = model(name)
    shown = padded(padding) if padding else torch.ones_like(tokens())

    def call():
        kind = transformers.StaticCache if cache == "static" else transformers.DynamicCache
        size = {"max_cache_len": 16} if cache == "static" else {}
        past, found = kind(config=m.config, **size), []
        positions = (shown.cumsum(1) - 1).clamp(min=0)
        for part in (slice(0, 2), slice(2, 6), slice(6, 7), slice(7, 9)):
            with torch.no_grad():
                out = m(
                    tokens()[:, part],
                    attention_mask=shown[:, : part.stop],
                    position_ids=positions[:, part],
                    cache=past,
                )
            found.append(out.logits[shown[:, part] > 0])
        return found

    got = by(m, "fanano", call)
    assert len(masks) == 2 * 4
    assert all(shape is None or shape[-2] == 1 for shape in masks)
    close(got, by(m, m.reference, call))


def test_packed_sequences(masks):
    """Told by positions that begin anew: transformers' own mask, of (L, S)."""
    m = model("mistral")
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    call = lambda: m(tokens(1), position_ids=positions, use_cache=False).logits  # noqa: E731
    close(by(m, "fanano", call), by(m, "sdpa", call))
    assert masks == [(1, 1, 9, 9)] * 2
    alone = m(tokens(1)[:, 6:], use_cache=False).logits
    close(m(tokens(1), position_ids=positions, use_cache=False).logits[:, 6:], alone)


@pytest.mark.parametrize("additive", [False, True])
def test_a_mask_of_ones_own(additive, masks):
    """It says everything: here that every token sees those on both sides of it."""
    m = model("llama")
    at = torch.arange(9)
    mask = ((at[:, None] - at).abs() <= 1)[None, None]
    if additive:
        mask = torch.full(mask.shape, -1e300, dtype=torch.float64).masked_fill(mask, 0.5)
    call = lambda: m(tokens(), attention_mask=mask, use_cache=False).logits  # noqa: E731
    close(by(m, "fanano", call), by(m, "sdpa", call))
    assert masks == [(1, 1, 9, 9)] * 2


@pytest.mark.parametrize("name", ["gemma2", "gpt-oss"])
def test_what_judges_is_right(name):
    """plain is eager, but for the rounding of eager's softmax, which is float32."""
    m = model(name)
    call = lambda: m(tokens(), use_cache=False).logits  # noqa: E731
    torch.testing.assert_close(by(m, "plain", call), by(m, "eager", call), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled():
    """A whole graph, forward and backward: padding, a window, shared heads. The same as eager."""
    m = model("mistral", num_hidden_layers=1)
    torch._dynamo.reset()
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    shown = padded("left")

    def call(m):
        out = m(tokens(), attention_mask=shown, use_cache=False).logits[shown > 0]
        return out, torch.autograd.grad(out.square().sum(), list(m.parameters()))

    m.set_attn_implementation("fanano")
    close(call(compiled), call(m))
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_generation():
    """Into a static cache, whose masks are made outside of the graph."""
    m = model("llama", num_hidden_layers=1)
    m.set_attn_implementation("fanano")
    call = functools.partial(
        generated, m, attention_mask=padded("left"), cache_implementation="static"
    )
    expected = call()
    torch._dynamo.reset()
    m.forward = torch.compile(m.forward, fullgraph=True, backend="eager")
    close(call(), expected)
    torch._dynamo.reset()


def test_autocast():
    m = model("llama").float()
    call = lambda: m(tokens(), use_cache=False).logits  # noqa: E731
    exact = by(m, "fanano", call)
    with torch.autocast("cpu", torch.bfloat16):
        got, expected = by(m, "fanano", call), by(m, "sdpa", call)
    assert got.dtype == expected.dtype == torch.bfloat16
    assert (got - exact).abs().max() < 1.25 * (expected - exact).abs().max()


def test_refusals():
    m = model("llama")
    m.set_attn_implementation("fanano")
    with pytest.raises(ValueError, match=r"attention weights, which fanano never stores"):
        m(tokens(), output_attentions=True)


def test_dropout_in_training():
    """Drawn anew at each step, and the same again where a checkpoint computes it twice."""
    m = model("llama")
    m.set_attn_implementation("fanano")
    m.train()
    for layer in m.model.layers:
        layer.self_attn.attention_dropout = 0.5

    def step():
        torch.manual_seed(3)
        m.zero_grad()
        m(tokens(), labels=tokens(), use_cache=False).loss.backward()
        return [x.grad for x in m.parameters()]

    expected = step()
    getattr(m, "activation_checkpointing_enable", m.gradient_checkpointing_enable)()
    assert all(torch.equal(a, b) for a, b in zip(step(), expected, strict=True))
    first = m(tokens(), use_cache=False).logits
    assert not torch.equal(m(tokens(), use_cache=False).logits, first)
    m.eval()
    first = m(tokens(), use_cache=False).logits
    assert torch.equal(m(tokens(), use_cache=False).logits, first)


def test_models_of_sdpa_with_fanano_under_torchs_own(kernels):  # noqa: F811
    """fanano.torch.install(), and a model that knows nothing of fanano."""
    m = model("mistral")
    m.set_attn_implementation("sdpa")

    def call():
        m.zero_grad()
        out = m(tokens(), attention_mask=padded("left"), use_cache=False).logits
        out.square().sum().backward()
        return out.detach(), [p.grad.clone() for p in m.parameters()]

    alone = call()
    assert kernels == []
    with fanano.torch.installed():
        got = call()
        close(generated(m, attention_mask=padded("left")), by(m, "fanano", lambda: generated(
            m, attention_mask=padded("left"))))  # fmt: skip
    assert kernels[:4] == ["attention_kernel"] * 2 + ["attention_backward_kernel"] * 2
    close(got, alone)


def test_the_example(kernels, capsys):  # noqa: F811
    """examples/install_speedup.py: fanano runs in everything it times."""
    path = Path(__file__).parents[2] / "examples" / "install_speedup.py"
    example = runpy.run_path(str(path))
    example["main"](["--rows", "33", "--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" torch ")[0].strip() for line in lines[1:]] == [
        f"{model}, {what}"
        for model in ("nn.MultiheadAttention", "nn.TransformerEncoder", "transformers' Llama")
        for what in ("training", "inference")
    ]
    forward, backward = (kernels.count(f"attention{x}_kernel") for x in ("", "_backward"))
    assert (forward, backward) == (2 * 2 * (1 + 2 + 2), 2 * (1 + 2 + 2))
