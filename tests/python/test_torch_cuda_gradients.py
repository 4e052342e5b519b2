"""What torch does above attention on a GPU: gradients, compiling, transforms, checkpoints, graphs.
By ``pytest -m cuda``; what can be tested without one is in test_torch_device.py."""

import compare
import cuda_cases
import pytest
import torch
import torch.nn.functional as F
from arrays import bits
from cases import Case
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint
from torch_gpu import judge_gradients, nothing_waits, on_a_gpu, tensors

import fanano
import fanano.torch

attention = fanano.torch.attention

LENGTHS = torch.tensor([60, 7])
OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "lengths of the host": {"kv_lengths": [60, 7]},
    "lengths of the device": {"kv_lengths": LENGTHS, "q_offset": torch.tensor(3)},
    "bool mask": {"attn_mask": torch.arange(33 * 65).reshape(33, 65) % 3 > 0},
    "bias": {"attn_mask": torch.linspace(-1, 1, 33 * 65).reshape(33, 65)},
    "sinks": {"sinks": torch.linspace(-1, 1, 4)},
    "slopes": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0], "softcap": 3.0},
    "dropout": {"dropout_p": 0.3, "seed": 11},
}


def sent_options(options):
    """With its tensors on the device; those that can be differentiated by, by name."""
    there = {k: x.cuda() if isinstance(x, torch.Tensor) else x for k, x in options.items()}
    by = {
        k: x for k, x in there.items() if k in ("attn_mask", "sinks") and x.dtype.is_floating_point
    }
    for x in by.values():
        x.requires_grad_()
    return there, by


def inputs(dtype=torch.float16, **more):
    return [x.requires_grad_() for x in tensors(dtype=dtype, **more)]


def dout_of(out):
    """By which no two elements have the same derivative; made there, for nothing may wait."""
    torch.manual_seed(9)
    return torch.randn_like(out)


def gradients(call, by):
    out = call()
    return torch.autograd.grad(out, by, dout_of(out))


def same(got, expected):
    for x, y in zip(got, expected, strict=True):
        assert (x.dtype, x.shape, x.device) == (y.dtype, y.shape, y.device)
        assert bits(x.detach().cpu()) == bits(y.detach().cpu())


def by_hand(arrays, options):
    """By fanano.attention_backward."""
    with torch.no_grad():
        out, lse = fanano.attention(*arrays, return_lse=True, **options)
        of_mask = getattr(options.get("attn_mask"), "requires_grad", False)
        found = fanano.attention_backward(
            dout_of(out), *arrays, out, lse, grad_mask=of_mask, **options
        )
    sinks = options.get("sinks")
    more = [found.dbias] if of_mask else []
    return [*found[:3], *more, *([] if sinks is None else [found.dsinks.to(sinks)])]


# ---- the numbers ---------------------------------------------------------------------------------

ROWS = [k for k in fanano.kernels() if k.name.startswith("backward_")]


@on_a_gpu
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_each_kernel(row):
    assert row.runnable, row.why_not
    sizes, options = cuda_cases.taken_by(row)
    for dims in sizes:
        for where, data in ("full", "normal"), ("causal", "growing"):
            shape = {"rows": 97, "keys": 189, "heads": (2, 4, 2, 4), "dims": dims}
            judge_gradients(Case(row.dtype, where=where, data=data, **shape, **options))


@on_a_gpu
@pytest.mark.parametrize("numbers", [cuda_cases.host_numbers, cuda_cases.device_numbers])
@pytest.mark.parametrize("name", cuda_cases.OPTIONS)
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_option(dtype, name, numbers):
    options = cuda_cases.PLAIN | cuda_cases.OPTIONS[name]
    if dtype == "float64" and "out_dtype" in options:
        pytest.skip("float64 has no partial results of its own")
    judge_gradients(Case(dtype, **options), numbers)


# ---- autograd ------------------------------------------------------------------------------------


@on_a_gpu
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradients_are_those_of_attention_backward(dtype, name):
    options, by = sent_options(OPTIONS[name])
    arrays = inputs(dtype)
    expected = by_hand(arrays, options)
    for call in attention, fanano.attention:
        same(gradients(lambda c=call: c(*arrays, **options), [*arrays, *by.values()]), expected)


@on_a_gpu
def test_through_the_log_sum_exp():
    arrays = inputs(torch.float32)
    out, lse = attention(*arrays, return_lse=True)
    dout, dlse = dout_of(out), dout_of(lse)
    found = torch.autograd.grad((out, lse), arrays, (dout, dlse))
    with torch.no_grad():
        expected = fanano.attention_backward(dout, *arrays, out, lse, dlse=dlse)[:3]
    same(found, expected)


@on_a_gpu
def test_by_torchs_signature():
    arrays = inputs()
    for options in {}, {"is_causal": True}, {"scale": 0.3}:

        def call(sdpa, options=options):
            square = [x[:, :, :33] for x in arrays]
            return gradients(lambda: sdpa(*square, enable_gqa=True, **options), arrays)

        found = call(fanano.torch.scaled_dot_product_attention)
        torch.testing.assert_close(
            found, call(F.scaled_dot_product_attention), rtol=0.01, atol=0.01
        )


@on_a_gpu
def test_nothing_waits():
    """Neither the forward pass nor the backward one, with numbers of the host or the device."""
    arrays = inputs()
    for name in OPTIONS:
        options, by = sent_options(OPTIONS[name])
        out = attention(*arrays, **options)
        dout = dout_of(out)
        torch.cuda.synchronize()
        with nothing_waits():
            out = attention(*arrays, **options)
            torch.autograd.grad(out, [*arrays, *by.values()], dout)


@on_a_gpu
def test_what_is_kept_is_linear():
    """Inputs, output and log-sum-exp: no scores."""
    arrays = inputs(rows=4096, keys=4096)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients(lambda: attention(*arrays), arrays)
    assert torch.cuda.max_memory_allocated() - before < 2 * 4 * 4096 * 4096 * 2 / 4


@on_a_gpu
def test_changes_in_place_are_noticed():
    arrays = inputs()
    out = attention(*arrays)
    with torch.no_grad():
        arrays[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@on_a_gpu
def test_second_derivatives_are_refused():
    arrays = inputs()
    (first,) = torch.autograd.grad(attention(*arrays).sum(), arrays[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        first.sum().backward()


@on_a_gpu
def test_on_another_stream():
    """The backward pass is on the stream of the forward one, as torch's engine has it."""
    arrays = inputs()
    expected = gradients(lambda: attention(*arrays), arrays)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        found = gradients(lambda: attention(*arrays), arrays)
    torch.cuda.current_stream().wait_stream(side)
    same(found, expected)


@on_a_gpu
def test_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU alone")
    arrays = inputs()
    expected = gradients(lambda: attention(*arrays, kv_lengths=[60, 7]), arrays)
    there = [x.detach().to("cuda:1").requires_grad_() for x in arrays]
    out = attention(*there, kv_lengths=[60, 7])
    found = torch.autograd.grad(out, there, dout_of(attention(*arrays)).to("cuda:1"))
    assert torch.cuda.current_device() == 0
    for x, y in zip(found, expected, strict=True):
        assert x.device == torch.device("cuda:1")
        assert torch.equal(x.cpu(), y.cpu())


# ---- what compiles, transforms and records it ----------------------------------------------------


@on_a_gpu
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", OPTIONS)
def test_compiled(name, backend):
    options, by = sent_options(OPTIONS[name])
    arrays = inputs()
    expected = gradients(lambda: attention(*arrays, **options) * 2, [*arrays, *by.values()])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, **options) * 2, fullgraph=True, backend=backend
    )
    same(gradients(lambda: compiled(*arrays), [*arrays, *by.values()]), expected)


@on_a_gpu
@pytest.mark.filterwarnings("ignore")
def test_compiled_into_graphs():
    """By the compiler's own CUDA graphs: the same, call after call."""
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, mode="reduce-overhead")
    for n in range(4):
        arrays = [x.detach() + n for x in inputs()]
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            same([compiled(*arrays, is_causal=True)], [attention(*arrays, is_causal=True)])


@on_a_gpu
def test_operators_are_what_they_say():
    arrays = inputs(torch.float32)
    nothing = (None,) * 7
    numbers = False, None, None, None, None, None, 0.0, 0, 0, 0, 0, "bhsd"
    torch.library.opcheck(
        torch.ops.fanano.attention.default,
        (*(x.detach() for x in arrays), None, *nothing, *numbers),
    )


@on_a_gpu
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant):
    """The forward pass made again drops the same."""
    arrays = inputs()

    def attend(*x):
        return attention(*x, dropout_p=0.3)

    torch.manual_seed(5)
    expected = gradients(lambda: attend(*arrays), arrays)
    torch.manual_seed(5)
    found = gradients(lambda: checkpoint(attend, *arrays, use_reentrant=reentrant), arrays)
    same(found, expected)


@on_a_gpu
def test_func_grad_and_vmap():
    arrays = [x.detach() for x in inputs(torch.float32)]

    def loss(q, k, v):
        return weighted_there(attention(q, k, v, is_causal=True))

    expected = grad(loss, (0, 1, 2))(*arrays)
    tracked = [x.clone().requires_grad_() for x in arrays]
    same(torch.autograd.grad(loss(*tracked), tracked), expected)
    examples = [torch.stack([x, 2 * x, -x]) for x in arrays]
    one_by_one = [grad(loss, (0, 1, 2))(*(x[i] for x in examples)) for i in range(3)]
    mapped = vmap(grad(loss, (0, 1, 2)))(*examples)
    same(mapped, [torch.stack(x) for x in zip(*one_by_one, strict=True)])


def weighted_there(out):
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    return (out * weights.reshape(out.shape)).sum()


@on_a_gpu
def test_autocast():
    arrays = inputs(torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = attention(*arrays)
    assert out.dtype == torch.bfloat16
    low = [x.detach().bfloat16().requires_grad_() for x in arrays]
    dout = dout_of(out)
    found = torch.autograd.grad(out, arrays, dout)
    expected = torch.autograd.grad(attention(*low), low, dout)
    same(found, [x.float() for x in expected])
    wide = [x.detach().double() for x in arrays]
    with torch.autocast("cuda"):
        assert attention(*wide).dtype == torch.float64


@on_a_gpu
def test_graphs_of_a_training_step():
    """Forward and backward, captured once; replayed with other numbers, lengths and seed."""
    arrays = inputs()
    lengths, seed = LENGTHS.cuda(), torch.tensor(3, device="cuda")
    options = {"kv_lengths": lengths, "dropout_p": 0.3, "seed": seed, "alibi_slopes": [0.5] * 4}
    dout = dout_of(attention(*arrays, **options))
    warm = torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        torch.autograd.grad(attention(*arrays, **options), arrays, dout)
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attention(*arrays, **options)
        found = torch.autograd.grad(out, arrays, dout)
    with torch.no_grad():
        arrays[0].neg_()
    lengths.copy_(torch.tensor([3, 65]))
    seed.fill_(2**40)
    graph.replay()
    again = attention(*arrays, **options)
    same([out, *found], [again, *torch.autograd.grad(again, arrays, dout)])


@on_a_gpu
def test_each_time_the_same_bits():
    arrays = inputs(rows=300, keys=700)
    first = gradients(lambda: attention(*arrays, is_causal=True), arrays)
    for _ in range(20):
        same(gradients(lambda: attention(*arrays, is_causal=True), arrays), first)


@on_a_gpu
def test_checked_numbers(monkeypatch):
    monkeypatch.setenv("FANANO_CHECK", "1")
    arrays = inputs()
    for name, wild in ("kv_lengths", [2**40, 3]), ("q_lengths", [-1, 3]):
        for call in attention, torch.no_grad()(attention):
            with pytest.raises(ValueError, match=f"{name} must be 0 to"):
                call(*arrays, **{name: torch.tensor(wild, device="cuda")})
