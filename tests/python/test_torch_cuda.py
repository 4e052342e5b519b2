"""torch tensors on CUDA devices, without gradients: what needs a GPU is marked so, and runs by
``pytest -m cuda``. What goes on before a kernel is tested without one in test_torch_device.py, the
kernels in test_emulated_cuda.py."""

import compare
import cuda_cases
import pytest
import torch
import torch.nn.functional as F
from cases import Case
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_gpu import nothing_waits, on_a_gpu, on_host, sent, tensors

import fanano
import fanano.torch

# Of attention itself.
ROWS = [k for k in fanano.kernels() if k.device == "cuda" and not k.name.startswith("backward_")]


def attention(case, send=lambda options: options, **more):
    arrays = (sent(x) for x in case.arrays())
    options = {name: sent(x) for name, x in send(dict(case.options)).items()} | more
    found = fanano.attention(
        *arrays, algorithm=case.algorithm, out_dtype=case.out_dtype, return_lse=True, **options
    )
    assert all(x.device == torch.device("cuda", torch.cuda.current_device()) for x in found)
    return found


def judge(case, send=lambda options: options, **more):
    out, lse = attention(case, send, **more)
    dtype = case.out_dtype or case.dtype
    assert out.dtype == getattr(torch, dtype)
    compare.judge_attention(
        on_host(out),
        on_host(lse),
        *case.arrays(),
        what=str(case),
        out_dtype=case.out_dtype,
        **case.options,
    )


@on_a_gpu
@pytest.mark.parametrize("row", ROWS, ids=repr)
def test_each_kernel(row):
    assert row.runnable, row.why_not
    algorithm = "safe" if row.name == "materialised" else "flash"
    sizes, options = cuda_cases.taken_by(row)
    decode = row.name.startswith("decode")
    for dims in sizes:
        for where, data in ("full", "normal"), ("causal", "growing"):
            judge(
                Case(
                    row.dtype,
                    rows=7 if decode else 197,
                    keys=1389 if decode else 389,
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

    def attend():
        late.copy_(query)
        fanano.attention(late, key, value, out=out, kv_lengths=[65, 65])

    with torch.cuda.stream(side):
        attend()  # what is made at the first call alone may wait: memory, the kernels themselves
        side.synchronize()
        late.zero_()
        out.zero_()
        torch.cuda._sleep(200_000_000)
        attend()
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
        {"dropout_p": 0.5, "seed": offset},
    ):
        fanano.attention(query, key, value, **options)  # what only the first call makes may wait
        with nothing_waits():
            fanano.attention(query, key, value, **options)


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
def test_graphs_of_dropout():
    """The seed is read again at each replay; without one, torch's generator goes on."""
    query, key, value = tensors()
    seed = torch.tensor(5, device="cuda")
    fanano.attention(query, key, value, dropout_p=0.5, seed=seed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = fanano.attention(query, key, value, dropout_p=0.5, seed=seed)
        drawn = fanano.attention(query, key, value, dropout_p=0.5)
    masks = []
    for number in 6, 2**40:
        seed.fill_(number)
        graph.replay()
        assert torch.equal(out, fanano.attention(query, key, value, dropout_p=0.5, seed=number))
        masks.append(drawn.clone())
    assert not torch.equal(*masks)
    torch.cuda.manual_seed(1)
    graph.replay()
    masks.append(drawn.clone())
    torch.cuda.manual_seed(1)
    graph.replay()
    assert torch.equal(drawn, masks[-1])


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
    words = "of fanano only attention and its gradients run there"
    out, lse = fanano.attention(query, key, value, return_lse=True)
    for call in (
        lambda: fanano.softmax(query),
        lambda: fanano.merge_states(out, lse, out, lse),
        lambda: fanano.explain(query, key, value),
        lambda: fanano.SoftmaxState().absorb(query[0, 0, 0]),
    ):
        with pytest.raises(NotImplementedError, match=words):
            call()
    seed = torch.tensor(3, device="cuda")
    with pytest.raises(ValueError, match="seed must be in the CPU's memory; it is on device CUDA"):
        fanano.attention(query.cpu(), key.cpu(), value.cpu(), dropout_p=0.5, seed=seed)


@on_a_gpu
def test_by_torchs_signature():
    query, key, value = tensors(rows=65)
    out = fanano.torch.scaled_dot_product_attention(
        query, key, value, is_causal=True, enable_gqa=True
    )
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # not the judge: it errs as much
        expected = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
    torch.testing.assert_close(out, expected, rtol=0.01, atol=0.01)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert fanano.torch.attention(query, key, value).dtype == torch.bfloat16
    with torch.autograd.profiler.profile() as profile:
        again = fanano.torch.attention(query, key, value, is_causal=True, q_offset=0)
    assert torch.equal(again, out)
    assert "fanano::attention" in {event.key for event in profile.key_averages()}
