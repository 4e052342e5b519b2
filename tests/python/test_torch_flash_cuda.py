"""fanano under torch's flash attention on CUDA (install()): what its operators give and take, on
tensors of the CPU; torch's register of such implementations. With a GPU: by ``pytest -m cuda``."""

import pytest
import torch
import torch.nn.functional as F
from arrays import bits
from torch.nn import attention as register
from torch_gpu import on_a_gpu, tensors

import fanano.torch
from fanano.cli import info
from fanano.torch import flash_cuda, installing, takeover


def inputs(rows=5, keys=7, dim=8, packed=False, dtype=torch.bfloat16):
    torch.manual_seed(0)
    shapes = (2, 4, rows, dim), (2, 2, keys, dim), (2, 2, keys, dim)
    made = [torch.randn(shape, dtype=dtype) for shape in shapes]
    return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in made] if packed else made


def meta_of(operator, *args, **kwargs):
    """What torch tells the compiler of an operator's results."""
    args = [x.to("meta") if isinstance(x, torch.Tensor) else x for x in args]
    return operator(*args, **kwargs)


def laid_as(got, meta):
    for x, y in zip(got, meta, strict=True):
        if isinstance(y, torch.Tensor):
            assert (x.shape, x.stride(), x.dtype) == (y.shape, y.stride(), y.dtype)
        else:
            assert x == y


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rows", "keys"), [(5, 7), (7, 5), (6, 6)])
def test_the_operators(rows, keys, causal, packed, monkeypatch):
    """Shapes, strides and dtypes are what torch says of its own; is_causal is the lower-right one;
    rows that see nothing are told to torch as its own kernel tells them, and gradients read it."""
    monkeypatch.setattr(flash_cuda, "runs", lambda: True)
    arrays = inputs(rows, keys, packed=packed)
    options = {"is_causal": causal, "scale": 0.4}
    ops = torch.ops.aten
    found = flash_cuda._forward(None, *arrays, **options)
    laid_as(found, meta_of(ops._scaled_dot_product_flash_attention, *arrays, **options))
    out, lse = fanano.attention(*arrays, return_lse=True, **options)
    assert bits(found[0]) == bits(out)
    hidden = rows - keys if causal and rows > keys else 0
    assert (found[1][..., :hidden] == torch.inf).all()
    assert bits(found[1][..., hidden:]) == bits(lse[..., hidden:])

    dout = torch.randn(out.shape, dtype=out.dtype)
    given = dout, *arrays, *found[:2], *found[2:6], 0.0, causal, *found[6:8]
    gradients = flash_cuda._backward(None, *given, scale=0.4)
    nothing = torch.empty(0)
    given = dout, *arrays, *found[:2], nothing, nothing, *given[8:]
    laid_as(gradients, meta_of(ops._scaled_dot_product_flash_attention_backward, *given, scale=0.4))
    expected = fanano.attention_backward(dout, *arrays, out, lse, **options)
    for x, y in zip(gradients, expected, strict=False):
        assert bits(x) == bits(y)
    assert (gradients[0][..., :hidden, :] == 0).all()


def test_what_is_left_to_torch(monkeypatch):
    """Dropout, its mask, and what fanano does not take; all, where its kernels cannot run."""
    asked = []

    class OfTorch:
        def __init__(self, name):
            self.name = name

        def call_boxed(self, *args, **kwargs):
            asked.append((self.name, args, kwargs))
            return "torch's"

    for name in flash_cuda.FORWARD, flash_cuda.BACKWARD:
        monkeypatch.setitem(flash_cuda._of_torch, name, OfTorch(name))
    x, odd = torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8)
    wide = torch.ones(1, 1, 4, 584)
    before = takeover.calls["left"]
    calls = ((x, x, x, 0.5), (x, x, x, 0.0, True, True), (x, odd, odd), (wide, wide, wide))
    monkeypatch.setattr(flash_cuda, "runs", lambda: True)
    for args in calls:
        assert flash_cuda._forward("keys", *args, scale=2.0) == "torch's"
    assert takeover.calls["left"] == before + len(calls)
    name, args, kwargs = asked[0]
    assert name == flash_cuda.FORWARD
    assert args == ("keys", x, x, x, 0.5, False, False)
    assert kwargs == {"scale": 2.0}
    monkeypatch.setattr(flash_cuda, "runs", lambda: False)
    assert flash_cuda._forward("keys", x, x, x) == "torch's"
    given = (*(x,) * 5, x, None, None, 4, 4, 0.0, False, "seed", "offset")
    assert flash_cuda._backward("keys", *given) == "torch's"
    monkeypatch.setattr(flash_cuda, "runs", lambda: True)
    given = (*(x,) * 5, x, None, None, 4, 4, 0.5, False, "seed", "offset")
    assert flash_cuda._backward("keys", *given) == "torch's"
    assert asked[-1] == (flash_cuda.BACKWARD, ("keys", *given), {"scale": None})


@pytest.fixture
def a_torch_with_cuda(monkeypatch):
    """It says that it has kernels there, and that of the module are built."""
    for name in flash_cuda.FORWARD, flash_cuda.BACKWARD:
        monkeypatch.setitem(flash_cuda._of_torch, name, None)
    monkeypatch.setattr(flash_cuda, "available", lambda: True)
    monkeypatch.setattr(installing._core, "build_info", lambda: {"cuda": True})


def has_kernels():
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return [has(f"aten::{x}", "CUDA") for x in (flash_cuda.FORWARD, flash_cuda.BACKWARD)]


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch has kernels of its own")
def test_torchs_register(a_torch_with_cuda):
    assert register.current_flash_attention_impl() is None
    with fanano.torch.installed():
        assert register.current_flash_attention_impl() == flash_cuda.NAME
        assert has_kernels() == [True, True]
        assert "; its flash attention on CUDA" in info.under_torch()
    assert register.current_flash_attention_impl() is None
    assert has_kernels() == [False, False]


@pytest.mark.parametrize("asks", [True, False])
def test_torch_is_asked_to_replace_its_kernels(asks, monkeypatch):
    """Where it wants to be, as torch 2.11; an older one does not know the word."""
    given = []

    class Library:
        def __init__(self, *names):
            assert names == ("aten", "IMPL")

    def impl(self, name, kernel, key, *, with_keyset, allow_override=False):
        given.append((name, kernel, key, with_keyset, allow_override))

    def older(self, name, kernel, key, *, with_keyset):
        given.append((name, kernel, key, with_keyset))

    Library.impl = impl if asks else older
    monkeypatch.setattr(torch.library, "Library", Library)
    assert isinstance(takeover.replacing("CUDA", {"a": 1, "b": 2}), Library)
    more = (True,) * asks
    assert given == [("a", 1, "CUDA", True, *more), ("b", 2, "CUDA", True, *more)]


def test_another_implementation_comes_back(a_torch_with_cuda):
    class Handle:
        active = True

        def remove(self):
            self.active = False

    handles = []
    register.register_flash_attention_impl(
        "another", register_fn=lambda: handles.append(Handle()) or handles[-1]
    )
    register.activate_flash_attention_impl("another")
    try:
        with fanano.torch.installed():
            assert not handles[0].active
        assert register.current_flash_attention_impl() == "another"
        assert handles[1].active
        fanano.torch.install()
        register.activate_flash_attention_impl("another")  # by who wants it meanwhile
        fanano.torch.uninstall()
        assert register.current_flash_attention_impl() == "another"
        assert handles[2].active
    finally:
        register.restore_flash_attention_impl()


def test_without_cuda_there_is_nothing_to_take_over(monkeypatch):
    monkeypatch.setattr(flash_cuda, "activate", lambda: pytest.fail("nothing is there"))
    monkeypatch.setattr(installing._core, "build_info", lambda: {"cuda": False})
    with fanano.torch.installed():
        pass
    monkeypatch.setattr(installing._core, "build_info", lambda: {"cuda": True})
    if not torch.backends.cuda.is_built():
        with fanano.torch.installed():
            pass


# ---- on a GPU ------------------------------------------------------------------------------------


def both_ways(call, taken):
    """By torch's flash attention and by fanano in its place, which counted so many calls."""
    with register.sdpa_kernel(register.SDPBackend.FLASH_ATTENTION):
        alone = call()
        before = dict(installing.calls)
        with fanano.torch.installed():
            found = call()
        counted = {name: installing.calls[name] - n for name, n in before.items()}
        again = call()
    assert counted == {"forward": 0, "backward": 0, "left": 0} | taken
    for x, y, z in zip(found, alone, again, strict=True):
        torch.testing.assert_close(x, y, rtol=0.02, atol=0.02)
        assert x.stride() == y.stride()
        assert z.dtype == y.dtype


def trained(rows=65, **options):
    arrays = [x[:, :2].requires_grad_() for x in tensors(rows=rows)]

    def call():
        out = F.scaled_dot_product_attention(*arrays, **options)
        return out, *torch.autograd.grad(out.float().square().sum(), arrays)

    return call


@on_a_gpu
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.2}], ids=str)
def test_installed(options):
    both_ways(trained(**options), {"forward": 1, "backward": 1})


@on_a_gpu
def test_head_dims_that_torch_pads():
    arrays = [x[:, :2, :, :37] for x in tensors(rows=65)]
    both_ways(lambda: [F.scaled_dot_product_attention(*arrays)], {"forward": 1})


@on_a_gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_installed_and_compiled():
    arrays = [x[:, :2].requires_grad_() for x in tensors(rows=65)]
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), fullgraph=True
    )

    def call():
        out = compiled(*arrays)
        return out, *torch.autograd.grad(out.float().square().sum(), arrays)

    both_ways(call, {"forward": 1, "backward": 1})


@on_a_gpu
def test_dropout_stays_torchs():
    def call():
        torch.manual_seed(3)
        return trained(dropout_p=0.5)()

    both_ways(call, {"left": 1})


@on_a_gpu
def test_other_back_ends_stay():
    """Masks and float32 are not the flash back end's."""
    query, key, value = (x[:, :2].float() for x in tensors())
    mask = torch.ones(33, 65, dtype=torch.bool, device="cuda")
    before = dict(installing.calls)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with fanano.torch.installed():
        assert torch.equal(
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask), expected
        )
    assert installing.calls == before


@on_a_gpu
@pytest.mark.parametrize("installed", ["forward", "backward"])
def test_one_pass_by_torch(installed):
    """Forward by one of them, backward by the other."""
    arrays = [x[:, :2].requires_grad_() for x in tensors(rows=65)]
    with register.sdpa_kernel(register.SDPBackend.FLASH_ATTENTION):
        alone = F.scaled_dot_product_attention(*arrays).float().square().sum()
        expected = torch.autograd.grad(alone, arrays)
        if installed == "forward":
            fanano.torch.install()
        loss = F.scaled_dot_product_attention(*arrays).float().square().sum()
        fanano.torch.uninstall() if installed == "forward" else fanano.torch.install()
        try:
            found = torch.autograd.grad(loss, arrays)
        finally:
            fanano.torch.uninstall()
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)
