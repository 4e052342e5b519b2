"""fanano.torch.attention in what torch records: compiled, exported and traced graphs, derivatives
too; and tensors of which only the shape is known."""

import io
import subprocess
import sys

import pytest
import torch
from arrays import bits
from test_torch_operators import (
    OPTIONS,
    attention,
    gradients,
    made,
    numbers,
    problem,
    same,
    weighted,
)
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import fanano
import fanano.torch

BOTH = pytest.mark.parametrize("call", [attention, fanano.attention])


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@BOTH
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(call, dynamic, dynamo):
    _, tensors = made(OPTIONS["mask (Hq, 1, Sk)"] | {"sinks": lambda: numbers(4)})

    def attend(query, key, value, attn_mask, sinks):
        others = {"attn_mask": attn_mask, "sinks": sinks, "is_causal": True}
        return call(query, key, value, window_size=(3, None), **others)

    compiled = torch.compile(attend, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    inputs = [*problem(), *(x.float().detach().requires_grad_() for x in tensors.values())]
    same([compiled(*inputs)], [attend(*inputs)])
    same(gradients(compiled, inputs), gradients(attend, inputs))
    shorter = [inputs[0][:, :, :3].detach().clone().requires_grad_(), *inputs[1:]]
    if dynamic:
        with torch.compiler.set_stance("fail_on_recompile"):
            same([compiled(*shorter)], [attend(*shorter)])


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vmap])
def test_transforms_inside_of_what_is_compiled_are_refused(transform, dynamo):
    """Never are derivatives lost without a word."""
    query, key, value = problem(grad=False)

    def attend(query):
        return transform(lambda q: attention(q, key, value).sum())(query)

    with pytest.raises(Exception, match=r"cannot be compiled inside of torch\.func's transforms"):
        torch.compile(attend, fullgraph=True, backend="aot_eager")(query)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_by_inductor(dynamo):
    def attend(query, key, value):
        out, lse = attention(query * 2, key, value, layout="bshd", return_lse=True)
        return out.relu() + lse.transpose(1, 2)[..., None]

    inputs = [x.detach().transpose(1, 2).requires_grad_() for x in problem()]
    compiled = torch.compile(attend, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), attend(*inputs))
    torch.testing.assert_close(gradients(compiled, inputs), gradients(attend, inputs))


@BOTH
def test_one_tensor_several_times(call, dynamo):
    """As query and key, or as key and value, or as two options."""
    lengths = torch.tensor([3, 5])

    def attend(x, y):
        first = call(x, x, y, q_lengths=lengths, kv_lengths=lengths)
        return first + call(y, x, x) + call(x, x, x)

    inputs = [numbers(2, 2, 5, 4, seed=i).requires_grad_() for i in range(2)]
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    same([compiled(*inputs)], [attend(*inputs)])
    same(gradients(compiled, inputs), gradients(attend, inputs))


FIRST = """
import torch, fanano
query = torch.ones(1, 2, 3, 8)
for x in query, torch.nn.Parameter(query, requires_grad=False):
    torch._dynamo.reset()
    attend = torch.compile(lambda x: fanano.attention(x, x, x), fullgraph=True, backend="aot_eager")
    assert torch.equal(attend(x), query)
"""


def test_the_first_call_of_all_is_compiled():
    """When no adapter has been loaded, and no type of tensor seen."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("name", ["scale", "softcap"])
def test_numbers_that_are_tensors_are_refused_where_nobody_knows_them(name, dynamo):
    def attend(query, key, value, x):
        return attention(query, key, value, **{name: x})

    inputs = problem(grad=False)
    with pytest.raises(Exception, match=f"{name} must be a number in what is compiled"):
        torch.compile(attend, fullgraph=True, backend="aot_eager")(*inputs, torch.tensor(0.5))


class Attend(torch.nn.Module):
    """Its input goes by attention, and past it."""

    def __init__(self, call, **options):
        super().__init__()
        self.call, self.options = call, options
        self.project = torch.nn.Linear(6, 12).double()
        with torch.no_grad():
            for i, x in enumerate(self.parameters()):
                x.copy_(numbers(*x.shape, seed=i))

    def forward(self, x):
        key, value = self.project(x).chunk(2, -1)
        out = self.call(x, key, value, is_causal=True, kv_lengths=[5, 3], **self.options)
        return out + value.square()


def trained(module, x):
    """A loss's gradients by the module's parameters, and by x."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(module(x).square().sum(), [*module.parameters(), x])


@BOTH
@pytest.mark.parametrize("strict", [False, True])
def test_exported(call, strict):
    """What was exported can be trained, too."""
    x, module = numbers(2, 3, 5, 6), Attend(call)
    exported = torch.export.export(module, (x,), strict=strict)
    assert "torch.ops.fanano.attention.default" in exported.graph_module.code
    same([exported.module()(x)], [module(x)])
    same(trained(exported.module(), x), trained(module, x))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    same(trained(torch.export.load(file).module(), x), trained(module, x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@BOTH
def test_a_trace_of_a_module_can_be_trained(call):
    x, module = numbers(2, 3, 5, 6), Attend(call)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, (x,)), file)
    file.seek(0)
    same(trained(torch.jit.load(file), x), trained(module, x))


def bare(query, key, value, slopes=None):
    """Attention as a graph has it."""
    numbers_of = (False, None, None, None, None, None, 0.0, 0, 0, 0, 0, "bhsd")
    options = (None, None, slopes, None, None, None, None, *numbers_of)
    return torch.ops.fanano.attention(query, key, value, None, *options)[0]


class Bare(torch.nn.Module):
    def forward(self, query, key, value, slopes):
        return attention(query, key, value, alibi_slopes=slopes)


@pytest.fixture(params=["bare", "exported", "traced"])
def graph(request):
    """Attention by query, key, value and slopes, which one of them has been made of."""
    inputs = (*problem(torch.float64, grad=False), torch.ones(4))
    if request.param == "exported":
        return torch.export.export(Bare(), inputs).module()
    return torch.jit.trace(Bare(), inputs) if request.param == "traced" else bare


FROM_GRAPHS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*performance drop")


@FROM_GRAPHS
def test_graphs_have_derivatives_or_say_that_they_have_none(graph):
    slopes = torch.ones(4)
    inputs = problem(torch.float64)

    def both(call):
        return lambda *x: call(*x, slopes)

    def expected(*x, **options):
        return attention(*x, alibi_slopes=slopes, **options)

    same(gradients(both(graph), inputs), gradients(expected, inputs))
    first = torch.autograd.grad(graph(*inputs, slopes).sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivative"):
        first.sum().backward()
    refused = (NotImplementedError, RuntimeError)  # TorchScript's
    with pytest.raises(refused, match="alibi_slopes requires grad"):
        graph(*inputs, slopes.clone().requires_grad_())
    with torch.no_grad():
        same([graph(*inputs, slopes.clone().requires_grad_())], [expected(*inputs)])
    for grad in True, False:
        x = inputs[0].detach().clone().requires_grad_(grad)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            with pytest.raises(refused, match="no forward derivatives"):
                graph(dual, *inputs[1:], slopes)


@FROM_GRAPHS
def test_graphs_are_transformed(graph):
    query, key, value = problem(torch.float64, grad=False)
    slopes = torch.ones(4)

    def loss(call):
        return lambda q: weighted(call(q))

    def of_graph(q):
        return graph(q, key, value, slopes)

    def expected(q):
        return attention(q, key, value, alibi_slopes=slopes)

    grad, vmap = torch.func.grad, torch.func.vmap
    same([grad(loss(of_graph))(query)], [grad(loss(expected))(query)])
    several = torch.stack([query, query * 2])
    same([vmap(of_graph)(several)], [torch.stack([expected(x) for x in several])])
    found = vmap(grad(loss(of_graph)))(several)
    same([found], [torch.stack([grad(loss(expected))(x) for x in several])])
    with pytest.raises((NotImplementedError, RuntimeError), match="no forward derivatives"):
        torch.func.jvp(of_graph, (query,), (query,))


def test_gradients_are_recorded():
    """By the core's kernels alone they would be constants."""

    def gradient(query, key, value):
        query = query.detach().requires_grad_()
        return torch.autograd.grad(weighted(attention(query, key, value)), query)[0]

    inputs = problem(grad=False)
    other = [x + 1 for x in inputs]
    for options in {}, {"pre_dispatch": True}, {"tracing_mode": "fake"}:
        recorded = make_fx(gradient, **options)(*inputs)
        same([recorded(*other)], [gradient(*other)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@BOTH
def test_recorded(call):
    inputs = problem(grad=False)
    other = [x + 1 for x in inputs]
    for trace in (
        lambda f: torch.jit.trace(f, tuple(inputs)),
        lambda f: make_fx(f)(*inputs),
        lambda f: make_fx(f, pre_dispatch=True)(*inputs),
        lambda f: make_fx(f, tracing_mode="fake")(*inputs),
        lambda f: make_fx(f, tracing_mode="symbolic")(*inputs),
    ):
        recorded = trace(lambda *x: call(*x))
        assert bits(recorded(*other)) == bits(attention(*other))


@pytest.mark.parametrize("rank", [4, 3, 2])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@BOTH
def test_shapes_are_known_before(call, layout, rank):
    """Sizes, strides and dtypes of what is not computed are those of what is."""
    inputs = problem(torch.bfloat16, grad=False)
    if layout == "bshd":
        inputs = [x.transpose(1, 2) for x in inputs]
    for _ in range(4 - rank):
        axis = 1 if layout == "bshd" and inputs[0].dim() == 3 else 0
        inputs = [x.select(axis, 0) for x in inputs]
    options = {"return_lse": True, "layout": layout, "out_dtype": "float32"}
    computed = attention(*inputs, **options)
    mode = FakeTensorMode()
    assert type(call(*(mode.from_tensor(x[:0]) for x in inputs))) is FakeTensor
    fake = [mode.from_tensor(x) for x in inputs]
    with mode:
        within = call(*fake, **options)
    for promised in (
        within,
        call(*fake, **options),
        call(*(x.to("meta") for x in inputs), **options),
    ):
        for x, y in zip(computed, promised, strict=True):
            assert (x.shape, x.stride(), x.dtype) == (y.shape, y.stride(), y.dtype)


@pytest.mark.parametrize(
    "x", [torch.ones(2, 3, device="meta"), FakeTensorMode().from_tensor(torch.ones(2, 3))]
)
def test_what_has_no_memory_is_for_attention_alone(x):
    for call in (
        lambda: fanano.softmax(x),
        lambda: fanano.explain(x, x, x),
        lambda: fanano.attention_backward(x, x, x, x, x, x),
    ):
        with pytest.raises(NotImplementedError, match="only attention takes such tensors"):
            call()


@BOTH
@pytest.mark.parametrize("grad", [False, True])
def test_nothing_is_made_of_numbers_that_are_not_there(call, grad):
    query, key, value = problem(grad=grad)
    options = {
        **{"attn_mask": torch.ones(5, 7), "sinks": torch.ones(4), "alibi_slopes": torch.ones(4)},
        **{"q_lengths": torch.tensor([1, 2]), "kv_lengths": torch.tensor([1, 2])},
        **{"q_offset": torch.tensor([1, 2]), "seed": torch.tensor(3)},
    }
    for name, x in options.items():
        given = {name: x.to("meta"), "dropout_p": 0.5 if name == "seed" else 0.0}
        with pytest.raises(ValueError, match=rf"{name} .*on device meta"):
            call(query, key, value, **given)
    with pytest.raises(ValueError, match="on device meta"):
        call(query, key.to("meta"), value)
    with pytest.raises(ValueError, match="key is on device cpu and query on device meta"):
        call(query.to("meta"), key, value)
