"""torch tensors on CUDA devices: what needs a GPU is marked so, and runs by ``pytest -m cuda``.
What they go through on the way to a kernel is tested without one in test_emulated_cuda.py."""

import re

import compare
import cuda_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import to_torch
from cases import Case
from torch._subclasses.fake_tensor import FakeTensorMode

import fanano
import fanano.torch
from fanano.adapters import torch as adapter
from fanano.torch import installing

# Of attention itself.
ROWS = [k for k in fanano.kernels() if k.device == "cuda" and not k.name.startswith("backward_")]


def on_a_gpu(test):
    reason = "there is no GPU that torch can use"
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))


# ---- without one ---------------------------------------------------------------------------------


class Pretends(torch.Tensor):
    """A tensor of the CPU that says it is elsewhere."""

    is_cuda = True


def pretending(x, **more):
    return torch.tensor(x, **more).as_subclass(Pretends)


QUERY = pretending([0.0]).expand(3, 2, 5, 8)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("argument", ["q_lengths", "kv_lengths", "q_offset"])
def test_integers_as_kernels_read_them(argument, dtype):
    steps = pretending([1, 9, 2, 9, 3], dtype=dtype)[::2]
    found = adapter.device_option(argument, steps, QUERY)
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    assert found.tolist() == [1, 2, 3]
    one = adapter.device_option(argument, pretending(7, dtype=dtype), QUERY)
    assert one.is_contiguous()
    assert one.tolist() == [7, 7, 7]
    assert adapter.device_option(argument, pretending(7), QUERY[0]).tolist() == [7]


def test_reals_as_kernels_read_them():
    slopes = adapter.device_option("alibi_slopes", pretending([[0.5, 2.0]] * 3).half(), QUERY)
    assert (slopes.dtype, slopes.shape) == (torch.float64, (3, 2))
    sinks = adapter.device_option("sinks", pretending([-np.inf, 1e300], dtype=torch.float64), QUERY)
    assert sinks.tolist() == [-np.inf, np.finfo(np.float32).max / 8]
    wide = pretending([1.0, 1e300], dtype=torch.float64)
    assert adapter.device_option("sinks", wide, QUERY.double()).tolist() == [1.0, 1e300]


def test_other_options_stay_as_they_are():
    for argument, x in {
        "attn_mask": pretending([True]),
        "kv_lengths": pretending([1.0]),
        "q_lengths": pretending([1], dtype=torch.uint8),
        "sinks": pretending([1]),
    }.items():
        assert adapter.device_option(argument, x, QUERY) is x
    x = torch.tensor([1])
    assert adapter.device_option("kv_lengths", x, QUERY) is x


def test_checks_copy_to_the_cpu(monkeypatch):
    copied = []
    monkeypatch.setattr(Pretends, "cpu", lambda x: copied.append(x) or "a copy", raising=False)
    monkeypatch.setenv("FANANO_CHECK", "1")
    lengths = pretending([1, 2, 3])
    assert adapter.device_option("kv_lengths", lengths, QUERY) == "a copy"
    assert len(copied) == 1
    assert copied[0] is lengths


def test_who_cannot_use_devices_says_so():
    words = r"x is on device .* only attention and attention_backward run there"
    with pytest.raises(NotImplementedError, match=words):
        adapter.diagnose(False, x=pretending([1.0]))
    adapter.diagnose(True, x=pretending([1.0]))
    with pytest.raises(ValueError, match="x must be in the CPU's memory, it is on device meta"):
        adapter.diagnose(True, x=torch.ones(1, device="meta"))


def test_traced_and_fake_tensors_are_refused():
    with FakeTensorMode():
        x = torch.empty(1, 2, 5, 8, device="cuda")
        lengths = torch.empty(1, dtype=torch.int64, device="cuda")
        y = torch.empty(1, 2, 5, 8)
        words = "is on device cuda:0, where fanano has no gradients yet, nor operators .* x.cpu()"
        with pytest.raises(NotImplementedError, match=f"query {words}"):
            fanano.torch.attention(x, x, x)
        with pytest.raises(NotImplementedError, match=f"kv_lengths {words}"):
            fanano.torch.attention(y, y, y, kv_lengths=lengths)
        with pytest.raises(NotImplementedError, match=f"query {words}"):
            fanano.torch.scaled_dot_product_attention(x, x, x)


def test_torch_without_the_exchange(monkeypatch):
    """It would not say on which stream it works."""
    monkeypatch.setattr(adapter, "_exchange", False)
    with pytest.raises(NotImplementedError, match=r"x is on device .* cannot say on which stream"):
        adapter.prepare(("x",), (pretending([1.0]),))


# ---- on a GPU ------------------------------------------------------------------------------------


def attention(case, send=lambda options: options, device="cuda", **more):
    def sent(x):
        return to_torch(x).to(device) if isinstance(x, np.ndarray) else x

    arrays = (sent(np.ascontiguousarray(x)) for x in case.arrays())
    options = {name: sent(x) for name, x in send(dict(case.options)).items()} | more
    found = fanano.attention(
        *arrays, algorithm=case.algorithm, out_dtype=case.out_dtype, return_lse=True, **options
    )
    assert all(x.device == torch.device(device, torch.cuda.current_device()) for x in found)
    return found


def judge(case, send=lambda options: options, **more):
    out, lse = attention(case, send, **more)
    dtype = case.out_dtype or case.dtype
    host = out.cpu().view(torch.int16).numpy() if dtype == "bfloat16" else out.cpu().numpy()
    compare.judge_attention(
        host.view(compare.DTYPES[dtype]),
        lse.cpu().numpy(),
        *case.arrays(),
        what=str(case),
        out_dtype=case.out_dtype,
        **case.options,
    )


def tensors(rows=33, keys=65, dim=64, dtype=torch.float16, **more):
    torch.manual_seed(0)
    shapes = (2, 4, rows, dim), (2, 2, keys, dim), (2, 2, keys, dim)
    return [torch.randn(shape, dtype=dtype, device="cuda", **more) for shape in shapes]


def taken_by(row):
    """Numbers of columns, and options, with which the table's first row that takes them is this."""
    if found := re.fullmatch(r"flash_sm80_[a-z0-9]+_(\d+)_(plain|general)", row.name):
        dim = int(found[1])
        return [(dim, dim), (dim - 7, dim)], {"softcap": 2.0} if found[2] == "general" else {}
    beyond_sm80 = row.name.startswith("flash_plain") and "16" in row.dtype
    return [(300, 300)] if beyond_sm80 else [(64, 64), (33, 70)], {}


def test_each_kernel_is_asked_for():
    for row in ROWS:
        dims, options = taken_by(row)
        if row.name.startswith("flash_sm80"):  # or it is named in another way than taken_by() reads
            assert f"_{max(dims[0])}_" in row.name
            assert row.name.endswith("general" if options else "plain")


@on_a_gpu
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_each_kernel(row):
    assert row.runnable, row.why_not
    algorithm = "safe" if row.name == "materialised" else "flash"
    sizes, options = taken_by(row)
    for dims in sizes:
        for where, data in ("full", "normal"), ("causal", "growing"):
            judge(
                Case(
                    row.dtype,
                    rows=197,
                    keys=389,
                    heads=(2, 4, 2, 4),
                    dims=dims,
                    where=where,
                    data=data,
                    algorithm=algorithm,
                    **options,
                )
            )


@on_a_gpu
@pytest.mark.parametrize("numbers", [cuda_cases.host_numbers, cuda_cases.device_numbers])
@pytest.mark.parametrize("name", cuda_cases.OPTIONS)
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_each_option(dtype, name, numbers):
    options = cuda_cases.PLAIN | cuda_cases.OPTIONS[name]
    if dtype == "float64" and "out_dtype" in options:
        pytest.skip("float64 has no partial results of its own")
    judge(Case(dtype, **options), numbers)


@on_a_gpu
def test_the_current_stream():
    """What it has been given to do before comes first; other streams do not matter."""
    query, key, value = tensors()
    expected = fanano.attention(query, key, value)
    late, out = torch.zeros_like(query), torch.empty_like(query)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        late.copy_(query)
        fanano.attention(late, key, value, out=out, kv_lengths=[65, 65])
        assert not side.query()  # nobody has waited
    side.synchronize()
    assert torch.equal(out, expected)


@on_a_gpu
def test_nothing_waits():
    query, key, value = tensors()
    lengths = torch.tensor([60, 65], device="cuda", dtype=torch.int32)
    offset = torch.tensor(3, device="cuda")
    mask = torch.ones(33, 65, dtype=torch.bool, device="cuda")
    for options in (
        {},
        {"kv_lengths": lengths, "q_offset": offset},
        {"kv_lengths": [60, 65]},
        {"attn_mask": mask},
        {"sinks": torch.zeros(4, device="cuda"), "alibi_slopes": torch.ones(4, device="cuda")},
        {"dropout_p": 0.5},
    ):
        torch.cuda.set_sync_debug_mode("error")
        try:
            fanano.attention(query, key, value, **options)
        except NotImplementedError as error:
            assert "no CUDA kernel of this build takes" in str(error)  # noqa: PT017
        finally:
            torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
def test_memory_is_given_back():
    query, key, value = tensors()
    out = torch.empty_like(query)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        fanano.attention(query, key, value, out=out, kv_lengths=[60, 65])
    assert torch.cuda.memory_allocated() == before


@on_a_gpu
def test_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU alone")
    arrays = tensors()
    expected = fanano.attention(*arrays)
    there = [x.to("cuda:1") for x in arrays]
    out = fanano.attention(*there, kv_lengths=[65, 65])
    assert out.device == torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    assert torch.equal(out.cpu(), expected.cpu())
    with pytest.raises(ValueError, match=r"key must be on the device of query, CUDA:0; .* CUDA:1"):
        fanano.attention(arrays[0], *there[1:])


@on_a_gpu
def test_graphs():
    """Captured once; replayed with other numbers, lengths too."""
    query, key, value = tensors()
    lengths = torch.tensor([60, 65], device="cuda")
    fanano.attention(query, key, value, kv_lengths=lengths)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fanano.attention(query, key, value, kv_lengths=lengths)
    lengths.copy_(torch.tensor([7, 3]))
    query.neg_()
    graph.replay()
    assert torch.equal(out, fanano.attention(query, key, value, kv_lengths=[7, 3]))


@on_a_gpu
def test_wild_lengths(monkeypatch):
    query, key, value = tensors()
    wild = torch.tensor([2**40, -5], device="cuda")
    out = fanano.attention(query, key, value, kv_lengths=wild)
    assert torch.equal(out, fanano.attention(query, key, value, kv_lengths=[65, 0]))
    monkeypatch.setenv("FANANO_CHECK", "1")
    with pytest.raises(
        ValueError, match=r"kv_lengths must be 0 to 65, .* number 0 is 1099511627776"
    ):
        fanano.attention(query, key, value, kv_lengths=wild)
    with pytest.raises(ValueError, match="kv_lengths must be 0 to 65"):
        fanano.attention(query, key, value, kv_lengths=[2**40, 3])


@on_a_gpu
def test_what_is_refused():
    query, key, value = tensors()
    with pytest.raises(
        ValueError, match="key must be on the device of query, CUDA:0; it is on CPU"
    ):
        fanano.attention(query, key.cpu(), value)
    with pytest.raises(ValueError, match="attn_mask must be on the device of query, CPU"):
        fanano.attention(query.cpu(), key.cpu(), value.cpu(), attn_mask=query[0, 0, :, :1] > 0)
    with pytest.raises(ValueError, match="same head dimension as query"):
        fanano.attention(query, key[..., :3], value)
    words = "only attention and attention_backward run there"
    out, lse = fanano.attention(query, key, value, return_lse=True)
    for call in (
        lambda: fanano.softmax(query),
        lambda: fanano.merge_states(out, lse, out, lse),
        lambda: fanano.explain(query, key, value),
        lambda: fanano.SoftmaxState().absorb(query[0, 0, 0]),
        lambda: fanano.attention(query, key, value, dropout_p=0.5, seed=lse[0, 0, 0].long()),
    ):
        with pytest.raises(NotImplementedError, match=words):
            call()
    words = "query is on device cuda:0, where fanano has no gradients yet"
    tracked = query.clone().requires_grad_()
    for call in (
        lambda: fanano.attention(tracked, key, value),
        lambda: fanano.torch.attention(tracked, key, value),
        lambda: torch.func.vmap(fanano.attention)(query, key, value),
    ):
        with pytest.raises(NotImplementedError, match=words):
            call()
    with torch.no_grad():
        assert torch.equal(fanano.attention(tracked, key, value), out)


@on_a_gpu
def test_by_torchs_signature():
    query, key, value = tensors(rows=65)
    out = fanano.torch.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True
    )
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(out, expected)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert fanano.torch.attention(query, key, value).dtype == torch.bfloat16
    with torch.autograd.profiler.profile():
        again = fanano.torch.attention(query, key, value, is_causal=True, q_offset=0)
    assert torch.equal(again, out)


@on_a_gpu
def test_install_leaves_cuda_to_torch():
    query, key, value = (x[:, :2] for x in tensors())
    expected = F.scaled_dot_product_attention(query, key, value)
    before = dict(installing.calls)
    with fanano.torch.installed():
        found = F.scaled_dot_product_attention(query, key, value)
    assert torch.equal(found, expected)
    assert installing.calls == before
