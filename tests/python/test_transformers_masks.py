"""The masks of fanano.transformers: what they show is what transformers' own show.

A mask that shows the same gives the same bits, so the two are told apart by nothing but a fault.
"""

import pytest
import torch
from arrays import bits
from test_torch_operators import numbers
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    sdpa_mask,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)
from transformers_models import one_thread

import fanano.torch
from fanano.transformers.layers import attention
from fanano.transformers.masks import mask

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
BATCH = 3
# q_length, kv_length, q_offset, kv_offset of what caches there are
PLACES = {
    "no cache": (7, 7, 0, 0),
    "one token": (1, 1, 0, 0),
    "a growing cache": (3, 9, 6, 0),
    "a growing cache, one more": (1, 9, 8, 0),
    "a static cache, empty": (5, 12, torch.tensor(0), 0),
    "a static cache": (3, 12, torch.tensor(4), 0),
    "a static cache, one more": (1, 12, torch.tensor(4), 0),
    "the last keys of a window": (4, 8, 9, 5),
    "a padding mask that is longer": (4, 11, 0, 0),
}
PADDINGS = {
    "none": lambda n: None,
    "nothing hidden": lambda n: torch.ones(BATCH, n, dtype=torch.bool),
    "left": lambda n: torch.arange(n) >= torch.tensor([0, n - 1, 2])[:, None],
    "right": lambda n: torch.arange(n) < torch.tensor([n, 1, n - 2])[:, None],
    "holes": lambda n: torch.arange(BATCH * n).reshape(BATCH, n) % 3 > 0,
    "too short": lambda n: torch.ones(BATCH, n, dtype=torch.bool)[:, : n - 1],
}
PATTERNS = {
    "causal": (causal_mask_function, True, None),
    "causal, window": (sliding_window_causal_mask_function(3), True, 3),
    "causal, window of one": (sliding_window_causal_mask_function(1), True, 1),
    "causal, window of all": (sliding_window_causal_mask_function(20), True, 20),
    "both sides": (bidirectional_mask_function, False, None),
    "both sides, window": (sliding_window_bidirectional_mask_function(2), False, 2),
    "both sides, window of all": (sliding_window_bidirectional_mask_function(20), False, 20),
}


class Layer(torch.nn.Module):
    def __init__(self, is_causal):
        super().__init__()
        self.is_causal = is_causal


class Config:
    def __init__(self, sliding_window=None, attention_chunk_size=None):
        self.sliding_window = sliding_window
        self.attention_chunk_size = attention_chunk_size


def asked(place, pattern, padding, config=None, **options):
    """What transformers asks of a mask function."""
    q_length, kv_length, q_offset, kv_offset = PLACES[place]
    function, causal, window = PATTERNS[pattern]
    return {
        "batch_size": BATCH,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "mask_function": function,
        "attention_mask": PADDINGS[padding](int(q_offset) + q_length),
        "local_size": window,
        "allow_is_causal_skip": causal,
        "allow_is_bidirectional_skip": not causal,
        "config": config or Config(sliding_window=window),
        "device": "cpu",
        "dtype": torch.float32,
        "use_vmap": False,
    } | options


def whole(asked):
    """The same as transformers has it for sdpa, all of (B, 1, L, S)."""
    never = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**asked | never)


def attended(found, asked, causal):
    q_length, kv_length = asked["q_length"], asked["kv_length"]
    query = numbers(BATCH, 4, q_length, 8, dtype=torch.float32)
    key, value = (numbers(BATCH, 2, kv_length, 8, dtype=torch.float32, seed=i) for i in (1, 2))
    unseen = ~whole(asked).any(2).expand(-1, 2, -1)
    key[unseen], value[unseen] = torch.nan, torch.inf
    return attention(Layer(causal), query, key, value, found, scaling=0.8)[0]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_mask_shows(place, pattern):
    causal, window = PATTERNS[pattern][1:]
    for padding in PADDINGS:
        given = asked(place, pattern, padding)
        found = mask(**given)
        out = attended(found, given, causal)
        assert out.isfinite().all(), padding
        assert bits(out) == bits(attended(whole(given), given, causal)), padding
        # Nothing of (L, S), but for a window on both sides of queries that are not the keys.
        if found is not None and (causal or window is None or place == "no cache"):
            assert found.dtype == torch.uint8
            assert found.untyped_storage().nbytes() <= BATCH * given["kv_length"]


def test_nothing_hidden_is_no_mask():
    for padding in "none", "nothing hidden":
        for place in "no cache", "one token", "a growing cache, one more":
            for pattern in "causal", "causal, window of all", "both sides":
                assert mask(**asked(place, pattern, padding)) is None
        assert mask(**asked("a growing cache", "causal", padding)).shape == (BATCH, 9)
        assert mask(**asked("a static cache", "causal", padding)).shape == (BATCH, 7)
    assert mask(**asked("a static cache, empty", "both sides", "none")) is None


@pytest.mark.parametrize(
    "options",
    [
        {"mask_function": and_masks(causal_mask_function, lambda b, h, q, k: k != 1)},
        {"allow_is_causal_skip": False},
        {
            "mask_function": chunked_causal_mask_function(3, torch.zeros(BATCH, dtype=torch.int64)),
            "local_size": 3,
            "config": Config(attention_chunk_size=3),
        },
        {
            "mask_function": chunked_causal_mask_function(3, torch.zeros(BATCH, dtype=torch.int64)),
            "local_size": 3,
            "config": Config(attention_chunk_size=3, sliding_window=3),
        },
    ],
    ids=["a function of its own", "all of it is wanted", "chunks", "chunks or a window"],
)
def test_what_else_there_is_comes_whole(options):
    given = asked("no cache", "causal", "left", **options)
    found = mask(**given)
    assert torch.equal(found, whole(given))
    assert found.dtype == torch.bool


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled():
    """No value is read: padding is assumed, and a tensor's offset makes a mask of (L, S)."""
    torch._dynamo.reset()
    compiled = torch.compile(mask, fullgraph=True, backend="eager")
    for place in "no cache", "a static cache":
        given = asked(place, "causal", "nothing hidden")
        found = compiled(**given)
        if place == "no cache":
            assert found.shape == (BATCH, 7)
            assert found.all()
        else:
            assert torch.equal(found, whole(given))
        assert bits(attended(found, given, True)) == bits(attended(whole(given), given, True))
    torch._dynamo.reset()


def test_asked_twice():
    """generate() asks before the model does, and hands on what it got."""
    for pattern in "causal", "causal, window":
        for place in "a static cache, empty", "a static cache":
            given = asked(place, pattern, "left")
            found = mask(**given)
            if pattern == "causal":  # the model makes booleans of what has two dimensions
                again = mask(**given | {"attention_mask": found.bool()})
            else:
                again = mask(**given | {"attention_mask": found.contiguous()})
            assert torch.equal(again, found)


def test_masks_are_no_booleans():
    """A product with a mask of (L, S) must not pass for one."""
    given = asked("no cache", "causal", "left")
    given |= {"batch_size": 1, "attention_mask": given["attention_mask"][1:2]}
    product = mask(**given) & torch.ones(1, 1, 7, 7, dtype=torch.bool)
    x = numbers(1, 2, 7, 8)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 7, 7\) and bytes: the model has combined"):
        attention(Layer(True), x, x, x, product)


def test_no_mask_and_more_keys_than_queries():
    """As transformers has it: an empty static cache, so upper left. One query sees all."""
    q, k = numbers(1, 2, 3, 8), numbers(1, 2, 7, 8, seed=1)
    first = attention(Layer(True), q, k, k, None)[0]
    assert bits(first) == bits(attention(Layer(True), q, k[:, :, :3], k[:, :, :3], None)[0])
    last = attention(Layer(True), q[:, :, :1], k, k, None)[0]
    assert bits(last) == bits(attention(Layer(False), q[:, :, :1], k, k, None)[0])
    assert bits(attention(Layer(False), q, k, k, None)[0]) == bits(
        attention(Layer(True), q, k, k, None, is_causal=False)[0]
    )
    assert bits(attention(torch.nn.Module(), q, k, k, None)[0]) == bits(first)


@pytest.mark.parametrize("causal", [True, False])
def test_a_window_that_only_the_layer_knows(causal):
    x = numbers(1, 2, 7, 8)
    at = torch.arange(7)
    shown = (at[:, None] - at).abs() < 3
    shown = (shown.tril() if causal else shown)[None, None]
    expected = attention(Layer(causal), x, x, x, shown)[0]
    for m in None, torch.ones(1, 7, dtype=torch.uint8):
        got = attention(Layer(causal), x, x, x, m, sliding_window=3)[0]
        assert bits(got) == bits(expected)
    of_mask = torch.ones(1, 3, 7, dtype=torch.uint8)
    assert bits(attention(Layer(causal), x, x, x, of_mask, sliding_window=2)[0]) == bits(expected)
    assert bits(attention(Layer(causal), x, x, x, shown, sliding_window=2)[0]) == bits(expected)


@pytest.mark.parametrize("form", ["none", "bytes", "bool", "additive"])
def test_position_bias(form):
    """Together with each form of mask; it and an additive mask have gradients."""
    x, bias = numbers(2, 2, 5, 8), numbers(1, 2, 5, 7, seed=3).requires_grad_()
    k = numbers(2, 2, 7, 8, seed=1)
    at, visible = torch.arange(5), torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1]]).bool()
    causal = (at[:, None] >= at) & visible[:, None, None]
    causal = torch.nn.functional.pad(causal, (0, 2))
    if form == "none":
        causal[:], m = torch.nn.functional.pad(at[:, None] >= at, (0, 2)), None
    elif form == "bytes":
        m = visible.to(torch.uint8)
    else:
        m = causal
    if form == "additive":
        m = torch.zeros(causal.shape, dtype=torch.float64).masked_fill(~causal, -torch.inf)
    out = attention(Layer(True), x, k, k, m, position_bias=bias)[0]
    scores = (x @ k.mT / 8**0.5 + bias).masked_fill(~causal, -torch.inf)
    nothing = ~causal.any(-1, keepdim=True)
    weights = scores.masked_fill(nothing, 0).softmax(-1).masked_fill(nothing, 0)
    expected = (weights @ k).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(*(torch.autograd.grad(o.sin().sum(), bias) for o in (out, expected)))


def test_what_comes_out():
    """(B, L, H, D), contiguous, 0 where a row sees nothing, sinks or not."""
    x = numbers(2, 4, 5, 8).requires_grad_()
    visible = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.uint8)
    for sinks in None, numbers(4):
        out, weights = attention(Layer(True), x, x, x, visible, s_aux=sinks)
        assert out.shape == (2, 5, 4, 8)
        assert out.is_contiguous()
        assert weights is None
        assert (out[0, :2] == 0).all()
        assert (out[1] != 0).all()
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
        assert (gradient[0, :, :2] == 0).all()


def test_dropout():
    x = numbers(1, 2, 5, 8)
    torch.manual_seed(3)
    out = attention(Layer(True), x, x, x, None, dropout=0.4)[0]
    torch.manual_seed(3)
    expected = fanano.torch.attention(x, x, x, is_causal=True, dropout_p=0.4)
    assert torch.equal(out, expected.transpose(1, 2))
    assert not torch.equal(out, attention(Layer(True), x, x, x, None, dropout=0.4)[0])


def test_refusals():
    x = numbers(1, 2, 5, 8)
    for name in "indices", "block_indices", "sinks":
        attention(Layer(True), x, x, x, None, **{name: None})
        with pytest.raises(NotImplementedError, match=rf"passes {name} to its attention"):
            attention(Layer(True), x, x, x, None, **{name: x})
    with pytest.raises(ValueError, match=r"weights, which fanano never stores: .*eager"):
        attention(Layer(True), x, x, x, None, output_attentions=True)
