"""Dropout in torch: its generator, transforms, checkpoints and compiler."""

import pytest
import torch
from arrays import bits
from test_torch_operators import attention, gradients, problem, same, weighted
from torch.utils.checkpoint import checkpoint

import fanano
import fanano.torch

P = 0.4


def dropped(*inputs, **options):
    return attention(*inputs, dropout_p=P, **options)


def seeded(call, *args):
    torch.manual_seed(3)
    return call(*args)


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_the_seed_is_of_torchs_generator():
    inputs = problem(grad=False)
    watched = [x.requires_grad_() for x in problem(grad=False)]
    first = seeded(dropped, *inputs)
    torch.manual_seed(3)
    seed = torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64)
    after = torch.get_rng_state()
    for again in (
        seeded(dropped, *watched).detach(),
        seeded(lambda *x: fanano.attention(*x, dropout_p=P), *inputs),
        dropped(*inputs, seed=seed),
        dropped(*inputs, seed=int(seed)),
        dropped(*watched, seed=int(seed)).detach(),
    ):
        assert bits(again) == bits(first)
        assert (torch.get_rng_state() == after).all()  # one number is drawn, or none
    assert bits(dropped(*inputs)) != bits(first)
    torch.manual_seed(3)
    attention(*inputs)  # draws nothing
    assert bits(dropped(*inputs)) == bits(first)


def test_the_seed_is_drawn_on_the_cpu():
    inputs = problem(grad=False)
    expected = seeded(dropped, *inputs), seeded(gradients, dropped, problem())
    torch.set_default_device("meta")
    try:
        found = seeded(dropped, *inputs), seeded(gradients, dropped, problem())
    finally:
        torch.set_default_device(None)
    assert bits(found[0]) == bits(expected[0])
    same(found[1], expected[1])


def test_torchs_own_signature():
    inputs = [x.repeat_interleave(2, 1) if i else x for i, x in enumerate(problem(grad=False))]
    sdpa = fanano.torch.scaled_dot_product_attention
    assert bits(seeded(lambda *x: sdpa(*x, dropout_p=P), *inputs)) == bits(seeded(dropped, *inputs))
    assert (sdpa(*inputs, dropout_p=1.0) == 0).all()
    batches = [x[None].expand(3, *x.shape) for x in inputs]
    many = seeded(lambda *x: sdpa(*x, dropout_p=P), *batches)
    assert len({bits(x) for x in many}) == 3


def test_backward_drops_the_same():
    inputs = problem()
    found = seeded(gradients, dropped, inputs)
    torch.manual_seed(3)
    seed = int(torch.randint(-(2**63), 2**63 - 1, (), dtype=torch.int64))
    same(found, gradients(lambda *x: dropped(*x, seed=seed), inputs))
    for reentrant in False, True:
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        torch.manual_seed(3)
        weighted(checkpoint(dropped, *leaves, use_reentrant=reentrant)).backward()
        same([x.grad for x in leaves], found)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("call", [attention, fanano.attention])
def test_compiled(call, dynamo):
    def attend(query, key, value):
        return call(query, key, value, dropout_p=P, is_causal=True)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    inputs = problem()
    same([seeded(compiled, *inputs)], [seeded(attend, *inputs)])
    same(seeded(gradients, compiled, inputs), seeded(gradients, attend, inputs))
    assert bits(compiled(*inputs)) != bits(compiled(*inputs))


def test_transformed():
    inputs = problem(grad=False)
    found = seeded(torch.func.grad(lambda q: dropped(q, *inputs[1:]).square().sum()), inputs[0])
    query = inputs[0].clone().requires_grad_()
    out = seeded(dropped, query, *inputs[1:])
    same([found], torch.autograd.grad(out.square().sum(), query))

    each = [x.expand(3, *x.shape) for x in inputs]
    one = torch.func.vmap(dropped, randomness="same")(*each)
    assert len({bits(x) for x in one}) == 1
    every = torch.func.vmap(dropped, randomness="different")(*each)
    assert len({bits(x) for x in every}) == 3
    seeds = torch.tensor([5, 6, 5])
    by_seed = torch.func.vmap(lambda s: dropped(*inputs, seed=s))(seeds)
    same(list(by_seed), [dropped(*inputs, seed=int(s)) for s in seeds])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(dropped)(*each)


def test_what_is_refused():
    inputs = problem()
    for error, message, wrong in (
        (TypeError, "seed must be an integer, got float", {"seed": 1.5}),
        (ValueError, "seed must be an integer of at most 64 bits", {"seed": 2**64}),
        (TypeError, r"seed must be one integer, got .*\(1,\)", {"seed": torch.tensor([1])}),
        (TypeError, "seed must be one integer, got .*bool", {"seed": torch.tensor(True)}),
        (TypeError, "seed must be one integer, got", {"seed": torch.tensor(1.0), "dropout_p": 0}),
        (TypeError, "dropout_offset must be four integers", {"dropout_offset": (0, 0, 0)}),
        (TypeError, "dropout_offset must be four integers", {"dropout_offset": (0, 0, 0, 1.5)}),
        (ValueError, "dropout_offset must be four integers, 0", {"dropout_offset": (0, 0, 0, -1)}),
        (ValueError, "dropout_p must be a probability", {"dropout_p": 2.0}),
        (TypeError, "dropout_p must be a number", {"dropout_p": "1"}),
    ):
        with pytest.raises(error, match=message):
            attention(*inputs, **{"dropout_p": P} | wrong)
        if "p" not in str(wrong):
            with pytest.raises(error, match=message):
                attention(*(x.detach() for x in inputs), **{"dropout_p": P} | wrong)
    rate = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"dropout_p requires grad.*no derivative by it"):
        attention(*inputs, dropout_p=rate)
