"""torch's special tensors: read as what they are, or refused."""

import subprocess
import sys
import textwrap
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from arrays import bits, problem, to_torch
from torch.autograd import forward_ad

import fanano


@pytest.fixture
def tensors():
    return [to_torch(x) for x in problem()]


@pytest.fixture
def plain(tensors):
    return bits(fanano.attention(*tensors))


def refused(exception, message, *tensors, **options):
    with pytest.raises(exception, match=message) as caught:
        fanano.attention(*tensors, **options)
    assert caught.type is exception


def test_torch_grad(tensors, plain):
    query, key, value = tensors
    key = key.clone().requires_grad_()
    assert fanano.attention(query, key, value).requires_grad
    with pytest.raises(NotImplementedError, match=r"x requires grad.*torch.no_grad\(\).*detach"):
        fanano.softmax(key)
    with torch.no_grad():
        assert bits(fanano.attention(query, key, value)) == plain
    with torch.inference_mode():
        assert bits(fanano.attention(query, key, value)) == plain
    assert bits(fanano.attention(query, key.detach(), value)) == plain
    out = torch.zeros(2, 4, 33, 24, requires_grad=True)
    refused(ValueError, "out requires grad", *tensors, out=out)


def test_torch_parameter(tensors, plain):
    query, key, value = tensors
    with torch.no_grad():
        out = fanano.attention(query, torch.nn.Parameter(key), value)
    assert type(out) is torch.Tensor
    assert bits(out) == plain
    fixed = torch.nn.Parameter(query, requires_grad=False)
    assert bits(fanano.attention(fixed, key, value)) == plain


def lazily_negated(x):
    """The same numbers, in a view whose memory holds their negatives."""
    view = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert view.is_neg()
    assert torch.equal(view, x)
    return view


def test_torch_negated_view(tensors, plain):
    for i in range(3):
        changed = list(tensors)
        changed[i] = lazily_negated(tensors[i])
        assert bits(fanano.attention(*changed)) == plain
    x = tensors[0]
    assert bits(fanano.softmax(lazily_negated(x))) == bits(fanano.softmax(x))
    refused(
        ValueError, "out is a lazily neg", *tensors, out=lazily_negated(torch.ones(2, 4, 33, 24))
    )


class Subclass(torch.Tensor):
    pass


def test_torch_tensors_that_are_not_their_memory(tensors, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    query, key, value = tensors
    with FakeTensorMode():
        fake = torch.empty(query.shape)
    refused(AssertionError, "convert all Tensors to FakeTensors", fake, key, value)  # torch's own
    refused(TypeError, "key is a FakeTensor, which has no memory", query, fake, value)
    refused(TypeError, "key is a .*Subclass; only plain", query, key.as_subclass(Subclass), value)
    monkeypatch.setattr(Subclass, "__module__", "torch._subclasses.another")
    refused(TypeError, "key is a .*Subclass; only plain", query, key.as_subclass(Subclass), value)
    refused(TypeError, "query must be a dense tensor, its layout is torch.sparse_coo",
            query.to_sparse(), key, value)  # fmt: skip
    refused(ValueError, "key must be in the CPU's memory, it is on device meta",
            query, key.to("meta"), value)  # fmt: skip
    refused(TypeError, "query .*complex64", torch.complex(query, query).conj(), key, value)
    refused(TypeError, "value must be float64.*int64", query, key, value.long())
    refused(
        TypeError, "query must be float64.*float8_e4m3fn", query.to(torch.float8_e4m3fn), key, value
    )
    refused(TypeError, "key must be of the same library as query, torch; it is of numpy",
            query, key.numpy(), value)  # fmt: skip


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torch_nested(tensors):
    query, key, value = tensors
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([query[0], query[1]], layout=layout)
        refused(TypeError, "query is a .*[nN]ested", nested, key, value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_torch_quantized(tensors):
    query, key, value = tensors
    quantized = torch.quantize_per_tensor(query, 0.1, 0, torch.qint8)
    refused(TypeError, r"query is quantized \(torch.qint8\)", quantized, key, value)


def test_torch_dtypes(tensors):
    """All that torch has, by name."""
    read = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
    others = {x for x in vars(torch).values() if isinstance(x, torch.dtype)} - read
    quantized = {x for x in others if "torch.q" in str(x)}
    assert {torch.float8_e4m3fn, torch.float8_e5m2, torch.bits8, torch.uint4} <= others
    for dtype in others - quantized - {torch.complex32}:  # which warns that it is experimental
        x = torch.empty(2, dtype=dtype)
        name = str(dtype).replace(".", r"\.")
        with pytest.raises(TypeError, match=f"^x (must be .* it is|of dtype) {name}(,| |$)"):
            fanano.softmax(x)
        if dtype not in (torch.int32, torch.int64):
            refused(TypeError, f"^kv_lengths (must be .* it is|of dtype) {name}( |$)", *tensors,
                    kv_lengths=x)  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own
def test_torch_transforms(tensors):
    query, key, value = tensors

    def attend(q):
        return fanano.attention(q, key[: len(q)], value[: len(q)])

    with pytest.raises(NotImplementedError, match=r"x is inside of a torch\.func transform"):
        torch.func.vmap(fanano.softmax)(query)
    with pytest.raises(NotImplementedError, match="query has a forward-mode tangent"):
        torch.func.jvp(attend, (query,), (query,))
    with forward_ad.dual_level():
        assert attend(query).shape == (2, 4, 33, 24)
        dual = forward_ad.make_dual(query, query)
        refused(NotImplementedError, "query has a forward-mode tangent", dual, key, value)


def test_torch_counts_a_write_to_out(tensors):
    out = torch.ones(2, 4, 33, 24)
    weight = torch.ones(1, requires_grad=True)
    product = weight * out  # autograd keeps out, to multiply gradients by
    before = out._version
    with pytest.raises(ValueError, match="layout"):
        fanano.attention(*tensors, out=out, layout="?")
    assert out._version == before
    fanano.attention(*tensors, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    with torch.inference_mode():
        inference = torch.empty(2, 4, 33, 24)
    assert bits(fanano.attention(*tensors, out=inference)) == bits(out)
    with torch.inference_mode():
        assert bits(fanano.attention(*tensors, out=torch.empty(2, 4, 33, 24))) == bits(out)
        before = out._version
    fanano.attention(*tensors, out=out)
    assert out._version > before


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_torch_tracing_is_refused(tensors, plain):
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.flop_counter import FlopCounterMode

    message = "this call is being traced.*only attention can be traced"
    for trace in (
        lambda f: torch.jit.trace(f, tuple(tensors)),
        lambda f: make_fx(f)(*tensors),
        lambda f: make_fx(f, pre_dispatch=True)(*tensors),
        lambda f: make_fx(f, tracing_mode="fake")(*tensors),
    ):
        with pytest.raises((NotImplementedError, TypeError), match=f"{message}|FakeTensor"):
            trace(lambda q, *_: fanano.softmax(q))
    with FlopCounterMode(display=False), pytest.raises(NotImplementedError, match=message):
        fanano.softmax(tensors[0])
    with FlopCounterMode(display=False):
        assert bits(fanano.attention(*tensors)) == plain
    assert bits(fanano.attention(*tensors)) == plain


def negated_integers(numbers):
    view = torch._neg_view(-torch.tensor(numbers))
    assert view.is_neg()
    assert view.tolist() == numbers
    return view


@pytest.mark.parametrize("option", ["q_offset", "q_lengths", "kv_lengths"])
def test_torch_lengths_that_are_not_their_memory(option, tensors):
    expected = bits(fanano.attention(*tensors, is_causal=True, **{option: [3, 20]}))
    for arrays in (tensors, [x.numpy() for x in tensors]):
        lengths = negated_integers([3, 20])
        out = fanano.attention(*arrays, is_causal=True, **{option: lengths})
        assert bits(out) == expected
        plan = fanano.explain(*arrays, **{option: lengths})
        assert str(plan) == str(fanano.explain(*arrays, **{option: [3, 20]}))
    each = torch.func.vmap(lambda n: fanano.attention(*tensors, is_causal=True, **{option: n}))
    assert bits(each(torch.tensor([[3, 20], [3, 3]]))[0]) == expected
    with pytest.raises(NotImplementedError, match=f"{option} is inside of a torch.func transform"):
        torch.func.vmap(lambda n: fanano.attention(*arrays, **{option: n}))(torch.ones(3, 2).int())
    refused(TypeError, f"{option} is a .*Subclass", *tensors,
            **{option: torch.ones(2).int().as_subclass(Subclass)})  # fmt: skip


def test_torch_without_its_private_names(tensors, plain, monkeypatch):
    """What is asked of torch's private parts only saves time."""
    public = SimpleNamespace(unpack_dual=forward_ad.unpack_dual)
    monkeypatch.setattr(import_module("fanano.adapters.torch"), "forward_ad", public)
    assert bits(fanano.attention(*tensors)) == plain


def test_torch_without_memory(tensors):
    query, key, value = tensors
    query = query.clone()
    query.untyped_storage().resize_(0)
    refused(ValueError, "query of shape .* has no memory", query, key, value)
    zero = torch._efficientzerotensor(key.shape)
    refused(ValueError, "key of shape .* has no memory", value[..., :16], zero, value)


def test_torch_compile(tensors, plain):
    compiled = torch.compile(lambda *x: fanano.attention(*x), backend="eager")
    assert bits(compiled(*tensors)) == plain


def test_torch_default_device_and_dtype(tensors, plain):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert bits(fanano.attention(*tensors)) == plain
    finally:
        torch.set_default_dtype(before)


def test_torch_limits_the_threads(threads):
    threads(4)
    x = torch.ones(1, 64, 512, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert fanano.explain(x, x, x).threads == 1
        torch.set_num_threads(3)
        assert fanano.explain(x, x, x).threads == 3
    finally:
        torch.set_num_threads(before)
    assert fanano.explain(x.numpy(), x.numpy(), x.numpy()).threads == 4


def test_torch_without_the_exchange_api():
    program = """
    import torch
    if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        del torch.Tensor.__dlpack_c_exchange_api__
    import fanano
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 16).reshape(2, 3, 8, 16)
    expected = fanano.attention(x.numpy(), x.numpy(), x.numpy())
    with torch.no_grad():
        out = fanano.attention(torch.nn.Parameter(x), x, x.clone().requires_grad_())
    assert type(out) is torch.Tensor and (out.numpy() == expected).all()
    assert (fanano.attention(x, x, x, out=out).numpy() == expected).all()
    assert fanano.attention(*[x.bfloat16()] * 3).dtype is torch.bfloat16
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=120)


def test_torch_flushing_denormals():
    """torch.set_flush_denormal changes the modes of the whole thread."""
    script = """
import torch, fanano
q, k = torch.ones(20, 8), torch.ones(30, 8)
v = torch.full((30, 8), 2.0**-140)
kept = fanano.attention(q, k, v)
assert torch.set_flush_denormal(True)
flushed = fanano.attention(q, k, v)
assert (torch.tensor([2.0**-140]) * 1).item() == 0  # torch's mode is still torch's
torch.set_flush_denormal(False)
assert torch.equal(kept, flushed) and (kept > 0).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
