"""fanano.torch.attention inside torch.func's transforms, checkpoints and autocast; refusals."""

import pytest
import torch
from arrays import bits
from test_torch_operators import (
    OPTIONS,
    attention,
    by_hand,
    gradients,
    made,
    numbers,
    problem,
    same,
    weighted,
)
from torch.autograd import forward_ad
from torch.func import grad, vmap
from torch.utils.checkpoint import checkpoint

import fanano

# How vmap goes over query, key, value and an option: some of them are the same in every example.
AXES = [
    (0, 0, 0, 0),
    (0, None, None, None),
    (None, 1, -1, 0),
    (None, None, None, 0),
    (2, 0, 0, None),
]
MAPPED = {  # options that have an example axis, of three
    "mask (Sq, Sk)": ("attn_mask", lambda: numbers(3, 5, 7)),
    "mask (B, 1, Sq, 1)": ("attn_mask", lambda: numbers(3, 2, 1, 5, 1)),
    "mask (B, Hq, Sq, Sk)": ("attn_mask", lambda: numbers(3, 2, 4, 5, 7)),
    "mask (1, Hq, 1, Sk)": ("attn_mask", lambda: numbers(3, 1, 4, 1, 7)),
    "sinks": ("sinks", lambda: numbers(3, 4)),
    "slopes": ("alibi_slopes", lambda: numbers(3, 4).abs()),
    "lengths": ("kv_lengths", lambda: torch.tensor([[7, 2], [0, 5], [1, 1]])),
}


def examples(axes, option):
    """Three examples of a problem, stacked along the axes, and of the option; and one by one."""
    each = [[x.detach() + i for x in problem()] for i in range(3)]
    each = [(*x, option[i]) for i, x in enumerate(each)]
    mapped, alone = [], [list(x) for x in each]
    for n, axis in enumerate(axes):
        if axis is None:
            mapped.append(each[0][n])
            for x in alone:
                x[n] = each[0][n]
        else:
            mapped.append(torch.stack([x[n] for x in each], axis))
    return mapped, alone


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("axes", AXES, ids=str)
def test_vmap_is_one_by_one(name, axes):
    """Of results, and of gradients by all that has some: bit for bit, for rows do not depend on
    each other; but gradients by what is broadcast over a batch are sums in another order."""
    argument, make = MAPPED[name]
    option = make()
    option = option if argument == "kv_lengths" else option.float()
    mapped, alone = examples(axes, option)

    def attend(query, key, value, other):
        return attention(query, key, value, is_causal=True, **{argument: other})

    by = (0, 1, 2, 3) if argument in ("attn_mask", "sinks") else (0, 1, 2)
    for call in attend, fanano_attend(argument):
        same(vmap(call, axes)(*mapped), [attend(*x) for x in alone])
    derive = grad(lambda *x: weighted(attend(*x)), by)
    for n, found in enumerate(vmap(derive, axes)(*mapped)):
        expected = torch.stack([derive(*x)[n] for x in alone])
        if n < 3:
            assert bits(found) == bits(expected)
        torch.testing.assert_close(found, expected)


def fanano_attend(argument):
    return lambda q, k, v, x: fanano.attention(q, k, v, is_causal=True, **{argument: x})


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("rank", [2, 3])
def test_vmap_adds_the_dimensions_that_are_left_out(layout, rank):
    query, key, value = (x.detach()[:, 0] for x in problem())  # (B, S, D)
    if rank == 3:
        query, key, value = (torch.stack([x, -x], 2 if layout == "bshd" else 1)
                             for x in (query, key, value))  # fmt: skip

    def attend(query, key, value):
        return attention(query, key, value, layout=layout, return_lse=True)

    out, lse = vmap(attend)(query, key, value)
    for i in range(2):
        same([out[i], lse[i]], attend(query[i], key[i], value[i]))
    one = vmap(grad(lambda *x: sum(weighted(y) for y in attend(*x)), (0, 1, 2)))(query, key, value)
    for i in range(2):
        alone = grad(lambda *x: sum(weighted(y) for y in attend(*x)), (0, 1, 2))
        same([x[i] for x in one], alone(query[i], key[i], value[i]))


@pytest.mark.parametrize("name", [None, *MAPPED])
def test_vmap_over_no_examples(name):
    inputs = [x.detach().expand(0, *x.shape) for x in problem()]
    option, values = MAPPED[name] if name else (None, None)
    options = {option: values()[:0]} if name else {}

    def call(query, key, value, options):
        return attention(query, key, value, return_lse=True, **options)

    out, lse = vmap(call)(*inputs, options)
    rows = inputs[0].shape[:-1]
    assert (out.shape, lse.shape) == ((*rows, inputs[2].shape[-1]), rows)

    def total(query, key, value, options):
        return call(query, key, value, options)[0].sum()

    assert vmap(grad(total))(*inputs, options).shape == inputs[0].shape


def test_the_gradient_of_a_vmap():
    mapped, _ = examples((0, None, None, 0), numbers(3, 4).float())

    def attend(query, key, value, sinks):
        return vmap(lambda q, s: attention(q, key, value, sinks=s))(query, sinks)

    found = grad(lambda *x: attend(*x).sum(), (0, 1, 2, 3))(*mapped)
    inputs = [x.clone().requires_grad_() for x in mapped]
    looped = [
        attention(q, *inputs[1:3], sinks=s) for q, s in zip(inputs[0], inputs[3], strict=True)
    ]
    expected = torch.autograd.grad(torch.stack(looped).sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_grad_is_backward():
    inputs = problem()
    found = grad(lambda *x: weighted(attention(*x, is_causal=True)), (0, 1, 2))(*inputs)
    same(found, by_hand(inputs, is_causal=True)[:3])
    _, pull = torch.func.vjp(lambda *x: attention(*x, return_lse=True), *problem())
    assert [x.shape for x in pull((torch.ones(2, 4, 5, 3), torch.ones(2, 4, 5)))] == [
        x.shape for x in inputs
    ]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints(use_reentrant):
    inputs = problem()
    out = checkpoint(lambda *x: attention(*x, softcap=3.0), *inputs, use_reentrant=use_reentrant)
    weighted(out).backward()
    same([x.grad for x in inputs], by_hand(inputs, softcap=3.0)[:3])


def test_autocast():
    inputs = problem()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*inputs)
        assert bits(out.detach()) == bits(attention(*[x.detach().bfloat16() for x in inputs]))
        assert fanano.attention(*inputs).dtype is torch.float32
        assert attention(*problem(torch.float64)).dtype is torch.float64
        with torch.autocast("cpu", enabled=False):
            assert attention(*inputs).dtype is torch.float32
    assert out.dtype is torch.bfloat16
    assert [x.dtype for x in torch.autograd.grad(out.sum(), inputs)] == [torch.float32] * 3


def test_negated_views_and_subclasses():
    class Subclass(torch.Tensor):
        pass

    inputs = problem()
    negated = [torch._neg_view(-x.detach()).requires_grad_() for x in inputs]
    same(gradients(attention, negated), by_hand(inputs)[:3])
    wrapped = [x.detach().as_subclass(Subclass) for x in inputs]
    assert type(attention(*wrapped)) is Subclass
    same([attention(*wrapped).as_subclass(torch.Tensor)], [attention(*inputs)])


# ---- refusals ------------------------------------------------------------------------------------


def refused(exception, message, call):
    with pytest.raises(exception, match=message) as caught:
        call()
    return caught


def test_second_derivatives_are_refused():
    inputs = problem()
    first = torch.autograd.grad(attention(*inputs).sum(), inputs[0], create_graph=True)[0]
    refused(NotImplementedError, "no second derivative: call backward without create_graph",
            lambda: first.sum().backward())  # fmt: skip
    query, key, value = (x.detach() for x in inputs)

    def once(q):
        return grad(lambda q: attention(q, key, value).sum())(q).sum()

    refused(NotImplementedError, "no second derivative", lambda: grad(once)(query))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own
def test_forward_derivatives_are_refused():
    query, key, value = (x.detach() for x in problem())
    message = r"query has a forward-mode tangent \(jvp.*use backward"
    refused(NotImplementedError, message, lambda: torch.func.jvp(
        lambda q: attention(q, key, value), (query,), (query,)))  # fmt: skip
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(query, query)
        refused(NotImplementedError, message, lambda: attention(dual, key, value))
        refused(NotImplementedError, "attn_mask has a forward-mode", lambda: attention(
            query, key, value, attn_mask=forward_ad.make_dual(numbers(7), numbers(7))))  # fmt: skip
    for transform in torch.func.hessian, lambda f: torch.func.jacfwd(torch.func.grad(f)):
        refused(NotImplementedError, r"no forward derivatives \(jvp, jacfwd, hessian\)",
                lambda t=transform: t(lambda q: attention(q, key, value).sum())(query))  # fmt: skip


@pytest.mark.parametrize("call", [attention, fanano.attention])
def test_what_has_no_derivative(call):
    inputs = problem(grad=False)
    for name, x in ("scale", 1.0), ("softcap", 2.0), ("alibi_slopes", [1.0] * 4):
        x = torch.tensor(x, requires_grad=True)
        message = f"{name} requires grad.*no derivative by it: pass {name}.detach"
        refused(NotImplementedError, message, lambda n=name, x=x: call(*inputs, **{n: x}))
        same([call(*inputs, **{name: x.detach()})], [call(*inputs, **{name: x.tolist()})])
    inputs[2].requires_grad_()
    refused(NotImplementedError, "algorithm='safe' has no derivative",
            lambda: call(*inputs, algorithm="safe"))  # fmt: skip
    refused(ValueError, "out cannot be given where an input requires grad",
            lambda: call(*inputs, out=torch.empty(2, 4, 5, 3)))  # fmt: skip


def test_wrong_arguments():
    query, key, value = problem()
    for message, call in {
        "query must be a torch tensor, got ndarray": lambda: attention(
            query.detach().numpy(), key, value
        ),
        "window_size must be None or .left, right.*got 3": lambda: attention(
            query, key, value, window_size=3
        ),
        "scale must be a number, got str": lambda: attention(query, key, value, scale="1"),
        "scale must be a number, got bool": lambda: attention(query, key, value, scale=True),
        "sinks must be a tensor or numbers": lambda: attention(query, key, value, sinks=["a"]),
        "q_lengths must be int": lambda: attention(query, key, value, q_lengths=[1.5, 2]),
    }.items():
        refused(TypeError, message, call)
    refused(ValueError, "key", lambda: attention(query, key[..., :5], value))
    caught = refused(ValueError, "key", lambda: fanano.attention(query, key[..., :5], value))
    assert caught.value.__context__ is None  # nothing is said of how it got there
    refused(ValueError, "kv_lengths", lambda: attention(query, key, value, kv_lengths=[8, 1]))


@pytest.mark.parametrize("n", range(5))
def test_what_was_changed_in_place_is_noticed(n):
    _, tensors = made(OPTIONS["mask (Sq, Sk)"] | {"sinks": lambda: numbers(4)})
    inputs = [x.clone() for x in (*problem(), *tensors.values())]
    out = attention(*inputs[:3], attn_mask=inputs[3], sinks=inputs[4])
    inputs[n].add_(1)
    refused(RuntimeError, "modified by an inplace operation", lambda: out.sum().backward())
