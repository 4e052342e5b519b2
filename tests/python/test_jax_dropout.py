"""Dropout in JAX: the same pairs as everywhere, whatever transforms, compiles or splits a call."""

import numpy as np
import pytest
from arrays import bits
from jax_arrays import needs_jax, python, refused, x64
from test_jax_sharding import PRELUDE
from test_jax_transforms import problem, weighted

import fanano

try:
    import jax
    import jax.numpy as jnp

    import fanano.jax
except ModuleNotFoundError:
    jax = None

pytestmark = needs_jax

P = 0.4


def by_hand(arrays, seed, **options):
    """out and gradients by NumPy."""
    query, key, value = map(np.asarray, arrays)
    options |= {"dropout_p": P, "seed": seed}
    out, lse = fanano.attention(query, key, value, return_lse=True, **options)
    dout = np.asarray(jax.grad(weighted)(out))
    return out, fanano.attention_backward(dout, query, key, value, out, lse, **options)[:3]


@pytest.mark.parametrize("call", ["fanano.attention", "fanano.jax.attention"])
def test_the_same_as_everywhere(call):
    arrays, attend = problem(), eval(call)
    offset = (3, 2, 2**32 - 3, 5)

    def loss(arrays, seed):
        out = attend(*arrays, dropout_p=P, seed=seed, dropout_offset=offset)
        return weighted(out), out

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for seed in (7, -7, np.uint32(2**32 - 7), np.int32(-1)):
        out, gradients = by_hand(arrays, seed, dropout_offset=offset)
        (_, got), found = compiled(arrays, jnp.asarray(seed))
        for x, y in zip((got, *found), (out, *gradients), strict=True):
            assert bits(np.asarray(x)) == bits(y)
        assert bits(np.asarray(loss(arrays, seed)[1])) == bits(out)
        assert bits(np.asarray(loss(arrays, jnp.asarray(seed))[1])) == bits(out)
    with x64():
        for seed in 2**40 + 1, -(2**50):
            (_, got), _ = compiled(arrays, jnp.asarray(seed, "int64"))
            assert bits(np.asarray(got)) == bits(by_hand(arrays, seed, dropout_offset=offset)[0])


def test_a_place_that_is_traced():
    arrays = problem()
    expected = by_hand(arrays, -7, dropout_offset=(3, 2, 2**32 - 3, 5))[0]

    def call(seed, head, row):
        offset = (3, head, row, jnp.asarray(5))
        return fanano.jax.attention(*arrays, dropout_p=P, seed=seed, dropout_offset=offset)

    row = np.uint32(2**32 - 3)
    assert bits(np.asarray(jax.jit(call)(-7, 2, row))) == bits(expected)
    assert bits(np.asarray(jax.jit(call, static_argnums=0)(-7, 2, row))) == bits(expected)


def test_in_the_signature_of_jax():
    arrays = problem(layout="bshd")
    seed = jax.random.bits(jax.random.key(3))
    out = fanano.jax.dot_product_attention(*arrays, dropout_p=P, seed=seed)
    expected = fanano.attention(*arrays, layout="bshd", dropout_p=P, seed=int(seed))
    assert bits(np.asarray(out)) == bits(np.asarray(expected))


def test_each_example_is_dropped_from_alone():
    arrays, seeds = problem(), jnp.array([5, 6, 5], "uint32")

    def gradient(query, seed):
        key, value = arrays[1:]
        call = fanano.jax.attention
        return jax.grad(lambda q: weighted(call(q, key, value, dropout_p=P, seed=seed)))(query)

    many = jnp.stack([arrays[0]] * 3)
    for axes, given in (((None, 0), (arrays[0], seeds)), ((0, None), (many, seeds[0]))):
        found = jax.vmap(gradient, axes)(*given)
        for i, x in enumerate(found):
            alone = gradient(arrays[0], seeds[i] if axes[1] == 0 else seeds[0])
            assert bits(np.asarray(x)) == bits(np.asarray(alone))


def test_split_over_devices():
    """What is dropped does not depend on where it is computed."""
    python(
        PRELUDE
        + """
for spec, kv_heads in ((P("x"), 2), (P(None, "x"), 2), (P(None, "x"), 1)):
    arrays = problem(kv_heads=kv_heads)
    call = grads((), dropout_p=0.4, seed=9)
    expected = call(list(arrays))
    specs = [spec, *[P() if kv_heads == 1 else spec] * 2]
    placed = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arrays, specs)]
    got = call(placed)
    assert not got[0][1][0].sharding.is_fully_replicated
    close(got, expected)

query, key, value = problem()
expected = fanano.jax.attention(query, key, value, dropout_p=0.4, seed=9)
def part(query, key, value):
    place = jax.lax.axis_index("x") * query.shape[0], 0, 0, 0
    return fanano.jax.attention(
        query, key, value, dropout_p=0.4, seed=9, dropout_offset=place)
shard_map = getattr(jax, "shard_map", None)
if shard_map is None:
    from jax.experimental.shard_map import shard_map
got = shard_map(part, mesh=mesh, in_specs=(P("x"),) * 3, out_specs=P("x"))(query, key, value)
close(got, expected, exact=True)
"""
    )


def test_what_is_refused():
    arrays = problem()

    def call(**wrong):
        return fanano.jax.attention(*arrays, **{"dropout_p": P, "seed": 1} | wrong)

    for attend in fanano.jax.attention, fanano.attention:
        refused(
            ValueError, "so seed must be given, for JAX has no random", attend, *arrays, dropout_p=P
        )
    refused(TypeError, "seed must be one integer, got an array of float32", call,
            seed=jnp.asarray(1.0))  # fmt: skip
    refused(TypeError, r"of uint32 of shape \(2,\); a key gives one", call,
            seed=jnp.zeros(2, "uint32"))  # fmt: skip
    refused(TypeError, "seed must be an integer, got float", call, seed=1.5)
    refused(ValueError, "dropout_p must be a probability", call, dropout_p=1.5)
    for offset in (0, 0), None, 3:
        refused(TypeError, "dropout_offset must be four integers, .* got ", call,
                dropout_offset=offset)  # fmt: skip
    refused(TypeError, "dropout_offset must be an integer, got ", jax.jit(
        lambda x: call(dropout_offset=(0, 0, 0, x))), 1.0)  # fmt: skip
    for attend in fanano.jax.attention, fanano.attention:
        refused(TypeError, "dropout_p must be a number while JAX traces", jax.jit(
            lambda p, a=attend: a(*arrays, dropout_p=p, seed=1)), 0.5)  # fmt: skip
