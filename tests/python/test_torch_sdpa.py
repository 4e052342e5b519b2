"""fanano.torch.scaled_dot_product_attention, and fanano under torch's own."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from test_torch_operators import gradients, numbers, problem, weighted

import fanano.torch
from fanano.torch import installing, scaled_dot_product_attention, sdpa


def tensors(*shapes, dtype=torch.float64):
    return [numbers(*s, dtype=dtype, seed=i).requires_grad_() for i, s in enumerate(shapes)]


SHAPES = {
    "4-D": ((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 3)),
    "3-D": ((4, 5, 8), (4, 7, 8), (4, 7, 8)),
    "2-D": ((5, 8), (7, 8), (7, 3)),
    "5-D": ((2, 3, 4, 5, 8), (2, 3, 4, 7, 8), (2, 3, 4, 7, 8)),
    "one head of all": ((3, 4, 5, 8), (1, 1, 7, 8), (3, 1, 7, 8)),
    "one batch of all": ((3, 4, 5, 8), (1, 4, 7, 8), (4, 7, 8)),
    "one query of all": ((1, 1, 5, 8), (3, 4, 7, 8), (3, 4, 7, 3)),
    "5-D, broadcast": ((2, 3, 4, 5, 8), (1, 3, 4, 7, 8), (2, 1, 1, 7, 8)),
}
SHARED = {
    "4-D": ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 3)),
    "3-D": ((4, 5, 8), (2, 7, 8), (2, 7, 8)),
    "one batch of all": ((3, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)),
    "5-D": ((2, 3, 4, 5, 8), (2, 3, 2, 7, 8), (2, 3, 2, 7, 8)),
}


def agree(inputs, **options):
    """Outputs and gradients are torch's."""
    mask = options.pop("attn_mask", None)
    if mask is not None:
        options["attn_mask"] = mask
        if mask.requires_grad:
            inputs = [*inputs, mask]

    def by(function):
        def call(query, key, value, *mask):
            given = options | ({"attn_mask": mask[0]} if mask else {})
            return function(query, key, value, **given)

        return call(*inputs), gradients(call, inputs)

    torch.testing.assert_close(by(scaled_dot_product_attention), by(F.scaled_dot_product_attention))


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_broadcasting_is_torchs(shapes):
    inputs = tensors(*shapes)
    agree(inputs)
    agree(inputs, is_causal=True, scale=0.3)  # upper left
    agree(inputs, attn_mask=torch.arange(35).reshape(5, 7) % 4 > 0)
    agree(inputs, attn_mask=numbers(5, 7).requires_grad_())


def test_one_key_head_is_not_repeated():
    query, key, value = sdpa._broadcast(*tensors(*SHAPES["one head of all"]), enable_gqa=False)
    assert query.shape[:2] == (3, 4)
    assert key.shape[:2] == value.shape[:2] == (3, 1)


@pytest.mark.parametrize("shapes", SHARED.values(), ids=SHARED)
def test_shared_heads_are_torchs(shapes):
    agree(tensors(*shapes), enable_gqa=True, is_causal=True)


def test_a_mask_and_causal_are_both():
    agree(tensors(*[(2, 4, 5, 8)] * 3), attn_mask=numbers(5, 5) > -1, is_causal=True)


def test_masks_of_many_dimensions():
    inputs = tensors(*SHAPES["5-D, broadcast"])
    for shape in (2, 1, 1, 5, 7), (3, 1, 1, 7), (2, 3, 4, 5, 7), (1, 7):
        agree(inputs, attn_mask=numbers(*shape).requires_grad_())


def test_what_differs_from_torch():
    query, key, value = tensors((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8))
    hidden = torch.ones(5, 7, dtype=torch.bool)
    hidden[2], hidden[:, 3] = False, False
    with torch.no_grad():
        key[:, :, 3], value[:, :, 3] = float("nan"), float("inf")
    out = scaled_dot_product_attention(query, key, value, hidden)
    assert (out[:, :, 2] == 0).all()
    found = torch.autograd.grad(out.sum(), (query, key, value))
    assert all(x.isfinite().all() for x in (out, *found))
    assert (found[0][:, :, 2] == 0).all()


def test_refusals():
    x = torch.ones(1, 2, 5, 8)
    with pytest.raises(ValueError, match=r"dropout_p must be a probability, 0 to 1, got 1.5"):
        scaled_dot_product_attention(x, x, x, dropout_p=1.5)
    with pytest.raises(ValueError, match=r"must broadcast, got .*; enable_gqa=True lets"):
        scaled_dot_product_attention(x.expand(1, 2, 5, 8), x.repeat(1, 2, 1, 1), x)
    with pytest.raises(TypeError, match=r"key must be a torch tensor .* got shape \(8,\)"):
        scaled_dot_product_attention(x, x[0, 0, 0], x)
    with pytest.raises(TypeError, match=r"value must be a torch tensor .* got list"):
        scaled_dot_product_attention(x, x, [1.0])


# ---- installed -----------------------------------------------------------------------------------


BOTH = "attention_kernel", "attention_backward_kernel"


@pytest.fixture
def kernels(monkeypatch):
    """What fanano computes in torch's place, by name, as it happens."""
    ran = []
    for name in BOTH:
        real = getattr(installing.operators, name)
        monkeypatch.setattr(
            installing.operators,
            name,
            lambda *a, real=real, name=name, **k: (ran.append(name), real(*a, **k))[1],
        )
    return ran


def both_ways(call, kernels, expected=BOTH, **tolerance):
    """The same by torch alone and by fanano, which ran these kernels."""
    alone = call()
    assert kernels == []
    with fanano.torch.installed():
        torch.testing.assert_close(call(), alone, **tolerance)
    assert kernels == list(expected)
    kernels.clear()
    torch.testing.assert_close(call(), alone, rtol=0, atol=0)
    assert kernels == []


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"attn_mask": torch.arange(35).reshape(5, 7) % 4 > 0, "scale": 0.4}],
    ids=["plain", "causal", "mask"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_installed(options, dtype, kernels):
    query, key, value = tensors((2, 4, 5, 8), (2, 4, 7, 8), (2, 4, 7, 8), dtype=dtype)
    packed = query.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    for q in query, packed:

        def call(q=q):
            out = F.scaled_dot_product_attention(q, key, value, **options)
            found = out, *torch.autograd.grad(weighted(out), (q, key, value))
            return found, [x.stride() for x in found]

        loose = {"rtol": 0.02, "atol": 0.02} if dtype is torch.bfloat16 else {}
        both_ways(call, kernels, **loose)


def test_installed_shared_heads(kernels):
    inputs = problem()[:2] + problem()[1:2]
    both_ways(lambda: gradients(lambda *x: F.scaled_dot_product_attention(
        *x, enable_gqa=True), inputs), kernels)  # fmt: skip


def test_what_is_left_to_torch(kernels):
    wide = [torch.ones(1, 1, 3, 577)] * 3
    x = numbers(2, 4, 5, 8).float()
    mask = numbers(5, 5).float().requires_grad_()
    for call in (
        lambda: F.scaled_dot_product_attention(*wide),
        lambda: F.scaled_dot_product_attention(x, x, x[..., :3]),
        lambda: F.scaled_dot_product_attention(x[0], x[0], x[0]),
        lambda: gradients(lambda m: F.scaled_dot_product_attention(x, x, x, m), [mask]),
        lambda: (torch.manual_seed(0), F.scaled_dot_product_attention(x, x, x, dropout_p=0.5))[1],
    ):
        both_ways(call, kernels, ())
    wide = [x.clone().requires_grad_() for x in wide]
    both_ways(lambda: gradients(F.scaled_dot_product_attention, wide), kernels, ())


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager"])
def test_installed_and_compiled(backend, kernels):
    inputs = problem()[:2] + problem()[1:2]
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: (
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) * 2
        ),
        fullgraph=True,
        backend=backend,
    )
    both_ways(lambda: gradients(compiled, inputs), kernels)
    torch._dynamo.reset()


def test_modules(kernels):
    torch.manual_seed(0)
    x = numbers(2, 5, 32).float().requires_grad_()
    attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2)
    padded = torch.zeros(2, 5, dtype=torch.bool)
    padded[1, 3:] = True

    def of(module, call):
        def both():
            out = call()
            return out, torch.autograd.grad(out.square().sum(), [x, *module.parameters()])

        return both

    both_ways(of(attention, lambda: attention(x, x, x, need_weights=False)[0]), kernels)
    both_ways(
        of(encoder, lambda: encoder(x, src_key_padding_mask=padded)),
        kernels,
        ["attention_kernel"] * 2 + ["attention_backward_kernel"] * 2,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.fixture
def no_fast_path():
    """In evaluation torch's modules go past scaled_dot_product_attention, unless told not to."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize("causal", [False, True])
def test_modules_in_evaluation(causal, kernels, no_fast_path):
    """Padding, a sequence of nothing else, causality: rows of nothing are torch's too."""
    torch.manual_seed(0)
    x = numbers(3, 5, 32).float()
    attention = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    padded = torch.zeros(3, 5, dtype=torch.bool)
    padded[1, 3:], padded[2] = True, True
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    calls = {
        lambda: attention(x, x, x, padded, need_weights=False, attn_mask=mask)[0]: 1,
        lambda: encoder(x, mask=mask, src_key_padding_mask=padded, is_causal=causal): 2,
    }
    with torch.inference_mode():
        for call, layers in calls.items():
            expected = call()
            both_ways(call, kernels, ["attention_kernel"] * layers, rtol=1e-4, atol=1e-5)
            torch.backends.mha.set_fastpath_enabled(True)
            torch.testing.assert_close(call()[:2], expected[:2], rtol=1e-4, atol=1e-5)
            torch.backends.mha.set_fastpath_enabled(False)


@pytest.mark.parametrize("installed", ["forward", "backward"])
def test_a_row_that_sees_nothing_between_two_libraries(installed):
    """Forward by one of them, backward by the other."""
    q, k = numbers(1, 1, 4, 8, dtype=torch.float32), numbers(1, 1, 5, 8, dtype=torch.float32)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2] = False
    q.requires_grad_()

    def loss():
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask).square().sum()

    (expected,) = torch.autograd.grad(loss(), q)
    with fanano.torch.installed() if installed == "forward" else nullcontext():
        value = loss()
    with fanano.torch.installed() if installed == "backward" else nullcontext():
        (got,) = torch.autograd.grad(value, q)
    assert (got[0, 0, 2] == 0).all()
    torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(layout):
    query = torch.nested.nested_tensor([torch.ones(2, 3, 8), torch.ones(2, 4, 8)], layout=layout)
    with pytest.raises(TypeError, match=r"query is a .*[nN]ested"):
        scaled_dot_product_attention(query, query, query)


def test_install_and_uninstall(kernels):
    x = torch.ones(1, 1, 2, 8)
    fanano.torch.uninstall()  # nothing is installed
    assert not fanano.torch.is_installed()
    fanano.torch.install()
    fanano.torch.install()
    try:
        with fanano.torch.installed():
            pass
        assert fanano.torch.is_installed()  # as before the block
        F.scaled_dot_product_attention(x, x, x)
        assert kernels == ["attention_kernel"]
    finally:
        fanano.torch.uninstall()
    assert not fanano.torch.is_installed()
    F.scaled_dot_product_attention(x, x, x)
    assert len(kernels) == 1
    with pytest.raises(KeyError), fanano.torch.installed():
        raise KeyError
    assert not fanano.torch.is_installed()


def test_one_block_does_not_end_another():
    """They hold for the process: of two threads, the first one's end leaves the second its own."""
    first, second = fanano.torch.installed(), fanano.torch.installed()
    with ThreadPoolExecutor(1) as other:
        other.submit(first.__enter__).result()
        with second:
            other.submit(first.__exit__, None, None, None).result()
            assert fanano.torch.is_installed()
        assert not fanano.torch.is_installed()
    try:
        with fanano.torch.installed():
            fanano.torch.install()
        assert fanano.torch.is_installed()
        with fanano.torch.installed():
            fanano.torch.uninstall()
            assert fanano.torch.is_installed()
        assert not fanano.torch.is_installed()
    finally:
        fanano.torch.uninstall()


def test_a_torch_that_cannot(monkeypatch):
    monkeypatch.delattr(torch.library, "get_kernel")
    with pytest.raises(RuntimeError, match=r"cannot be installed into torch .* call fanano.torch"):
        fanano.torch.install()
    assert not fanano.torch.is_installed()
