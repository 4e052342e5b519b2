"""fanano.torch.attention: derivatives, and the operators that they are made of.

The derivatives themselves are judged in float64 by differences; everything else must then have the
bits of fanano.attention and fanano.attention_backward.
"""

import numpy as np
import pytest
import torch
from arrays import bits

import fanano
import fanano.torch

attention = fanano.torch.attention

# Of (2, 4, 5, 6) queries, (2, 2, 7, 6) keys and (2, 2, 7, 3) values. What is a function makes
# tensors that are differentiated by, if they may be.
OPTIONS = {
    "plain": {},
    "scale": {"scale": -0.7},
    "causal": {"is_causal": True},
    "upper left": {"is_causal": True, "q_offset": 0},
    "window": {"window_size": (2, 1)},
    "rows that see nothing": {"is_causal": True, "q_offset": -2},
    "offsets": {"is_causal": True, "q_offset": [-1, 3]},
    "softcap": {"softcap": 1.5},
    "lengths": {"is_causal": True, "q_lengths": [5, 2], "kv_lengths": torch.tensor([0, 4])},
    "bool mask": {"attn_mask": torch.arange(35).reshape(5, 7) % 3 > 0},
    "mask (Sq, Sk)": {"attn_mask": lambda: numbers(5, 7)},
    "mask (Hq, 1, Sk)": {"attn_mask": lambda: numbers(4, 1, 7), "is_causal": True},
    "mask (B, 1, Sq, 1)": {"attn_mask": lambda: numbers(2, 1, 5, 1), "softcap": 2.0},
    "mask (B, Hq, Sq, Sk)": {"attn_mask": lambda: numbers(2, 4, 5, 7), "window_size": (1, None)},
    "slopes": {"alibi_slopes": [0.5, 0.25, 0.125, 0.0]},
    "slopes (B, Hq)": {"alibi_slopes": torch.linspace(0, 1, 8).reshape(2, 4)},
    "sinks": {"sinks": lambda: numbers(4), "is_causal": True, "q_offset": -1},
    "dropout": {"dropout_p": 0.4, "seed": 2**64 - 7, "dropout_offset": (0, 0, 3, 2)},
}


def numbers(*shape, dtype=torch.float64, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)  # torch's are refused inside of vmap
    return torch.from_numpy(x).to(dtype)


def problem(dtype=torch.float32, grad=True):
    shapes = (2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 3)
    return [numbers(*s, dtype=dtype, seed=i).requires_grad_(grad) for i, s in enumerate(shapes)]


def made(options, dtype=torch.float64):
    """The options, and their tensors that require grad, by name."""
    tensors = {k: x().to(dtype).requires_grad_() for k, x in options.items() if callable(x)}
    return options | tensors, tensors


def weighted(out, seed=9):
    """A loss by which no two elements have the same derivative."""
    return (out * numbers(*out.shape, dtype=out.dtype, seed=seed)).sum()


def gradients(call, inputs):
    return torch.autograd.grad(weighted(call(*inputs)), inputs)


def by_hand(inputs, **options):
    """The same by fanano.attention_backward."""
    with torch.no_grad():
        out, lse = fanano.attention(*inputs, return_lse=True, **options)
        dout = numbers(*out.shape, dtype=out.dtype, seed=9)
        of_mask = getattr(options.get("attn_mask"), "requires_grad", False)
        return fanano.attention_backward(dout, *inputs, out, lse, grad_mask=of_mask, **options)


def same(got, expected):
    for x, y in zip(got, expected, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        assert bits(x.detach()) == bits(y.detach())


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_derivatives_are_differences(name, layout):
    options, tensors = made(OPTIONS[name])
    if layout == "bshd":
        options["layout"] = layout

    def both(query, key, value, *others):
        if layout == "bshd":
            query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        given = options | dict(zip(tensors, others, strict=True))
        out, lse = attention(query, key, value, return_lse=True, **given)
        return out, torch.where(torch.isfinite(lse), lse, 0)

    inputs = [*problem(torch.float64), *tensors.values()]
    assert torch.autograd.gradcheck(both, inputs, fast_mode=name != "plain")


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_attention_backward(name, dtype):
    options, tensors = made(OPTIONS[name], dtype)
    inputs = problem(dtype)
    found = by_hand(inputs, **options)
    expected = [*found[:3]]
    if "attn_mask" in tensors:
        expected.append(found.dbias)
    if "sinks" in tensors:
        expected.append(found.dsinks.to(dtype))
    for call in attention, fanano.attention:
        out = call(*inputs, **options)
        assert bits(out.detach()) == bits(call(*[x.detach() for x in inputs], **{
            k: x.detach() if k in tensors else x for k, x in options.items()
        }))  # fmt: skip
        same(torch.autograd.grad(weighted(out), [*inputs, *tensors.values()]), expected)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("kv_lengths", np.array([7])),
        ("q_lengths", np.array([7])),
        ("q_offset", np.array([3])),
        ("sinks", np.array([1.0, 2, 3, 4])),
        ("alibi_slopes", np.array([1.0, 2, 3, 4])),
        ("attn_mask", np.arange(6.0).reshape(1, 6)[:, ::-1]),
    ],
)
def test_arrays_of_options_may_be_used_again(name, option):
    """Another library's memory: torch would not notice that it changes before the backward pass."""
    inputs = [numbers(1, 4, 5, 8), numbers(1, 2, 6, 8), numbers(1, 2, 6, 8)]
    for x in inputs:
        x.requires_grad_()
    option = option.copy() if option.flags.c_contiguous else option
    is_causal, window = np.True_, (np.int64(4), 0)
    more = {"is_causal": is_causal, "window_size": window}
    if name in ("kv_lengths", "q_lengths"):
        option[:] = 3
    out = [fanano.attention(*inputs, **{name: option}, **more) for _ in range(2)]
    expected = torch.autograd.grad(out[0].square().sum(), inputs)
    option[...] = option[..., ::-1] if option.size > 1 else 1
    got = torch.autograd.grad(out[1].square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_only_what_is_asked_for():
    inputs = problem(grad=False)
    sinks = numbers(4, dtype=torch.float32).requires_grad_()
    (of_sinks,) = gradients(lambda s: attention(*inputs, sinks=s), [sinks])
    assert bits(of_sinks) == bits(by_hand(inputs, sinks=sinks).dsinks)
    mask = numbers(5, 7, dtype=torch.float32).requires_grad_()
    (of_mask,) = gradients(lambda m: attention(*inputs, attn_mask=m), [mask])
    assert bits(of_mask) == bits(by_hand(inputs, attn_mask=mask).dbias)
    inputs[1].requires_grad_()
    lse = attention(*inputs, return_lse=True)[1]
    (dk,) = torch.autograd.grad(weighted(lse), inputs[1])
    with torch.no_grad():
        out, lse = fanano.attention(*inputs, return_lse=True)
        dlse = numbers(*lse.shape, dtype=lse.dtype, seed=9)
        nothing = torch.zeros_like(out)
        found = fanano.attention_backward(nothing, *inputs, out, lse, dlse=dlse)
    assert bits(dk) == bits(found.dk)
    out, lse = attention(*problem(), return_lse=True, out_dtype=torch.float32)
    assert out.requires_grad
    assert lse.requires_grad
    with torch.no_grad():
        assert not attention(*problem()).requires_grad


# ---- as torch's operators -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "mask (Hq, 1, Sk)", "sinks", "lengths", "dropout"])
def test_the_operators_keep_torchs_rules(name):
    options, tensors = made(OPTIONS[name])
    tensors = {k: x.detach() for k, x in tensors.items()}
    lengths = [torch.as_tensor(options[k]) if k in options else None
               for k in ("q_lengths", "kv_lengths")]  # fmt: skip
    seed = torch.tensor(7) if name == "dropout" else None
    given = (tensors.get("attn_mask"), tensors.get("sinks"), None, *lengths, None, seed)
    given = (*given, True, None, 1, None, 0.5, None)
    given = (*given, 0.0 if seed is None else 0.4, 0, 0, 3, 0, "bhsd")
    inputs = problem(grad=False)
    torch.library.opcheck(torch.ops.fanano.attention.default, (*inputs, None, *given))
    out, lse = torch.ops.fanano.attention(*inputs, None, *given)
    torch.library.opcheck(
        torch.ops.fanano.attention_backward.default,
        (out, *inputs, out, lse, lse, "attn_mask" in tensors, *given),
    )


@pytest.mark.parametrize("call", [attention, fanano.attention])
def test_profilers_see_the_operators(call):
    """What is called past torch's dispatcher otherwise; only fanano.attention without gradients is
    never seen."""
    inputs = problem()
    for profile in torch.profiler.profile, torch.autograd.profiler.profile:
        with profile() as seen:
            gradients(call, inputs)
            attention(*(x.detach() for x in inputs))
        events = seen.events() if hasattr(seen, "events") else seen.function_events
        names = [event.name for event in events]
        assert names.count("fanano::attention") == 2
        assert names.count("fanano::attention_backward") == 1


@pytest.mark.filterwarnings("ignore:.*performance drop:UserWarning")  # torch's own, of its batches
def test_gradients_that_are_no_plain_tensors():
    """Batches of torch.autograd's own vmap, and zeros without memory: the dispatcher knows them."""
    inputs = problem(torch.float64)
    out = attention(*inputs)
    several = torch.stack([numbers(*out.shape, seed=i) for i in range(3)])
    options = {"is_grads_batched": True, "retain_graph": True}
    found = torch.autograd.grad(out, inputs, several, **options)
    for i, dout in enumerate(several):
        same([x[i] for x in found], torch.autograd.grad(out, inputs, dout, retain_graph=True))
    (nothing,) = torch.autograd.grad(
        out, inputs[:1], torch._efficientzerotensor(*out.shape).double()
    )
    assert (nothing == 0).all()
    small = [x[:1, :2, :2].detach() for x in inputs]

    def attend(query):
        return attention(query, *small[1:])

    jacobian = torch.autograd.functional.jacobian
    torch.testing.assert_close(
        jacobian(attend, small[0], vectorize=True), jacobian(attend, small[0])
    )
