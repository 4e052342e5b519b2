"""fanano.jax over devices: nothing that is sharded by sequences or heads is gathered, and the
results are those of one device. In processes of their own, which have them."""

from jax_arrays import needs_jax, python

pytestmark = needs_jax

PRELUDE = """
DEVICES = 2
import os
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import fanano, fanano.jax

assert len(jax.devices()) == DEVICES
mesh = Mesh(np.array(jax.devices()), ("x",))
rng = np.random.default_rng(0)

def numbers(*shape):
    return jnp.asarray(rng.standard_normal(shape), "float32")

def close(got, expected, exact=False):
    got, expected = (jax.tree.leaves(jax.tree.map(np.asarray, x)) for x in (got, expected))
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)

# Of 2 sequences, 4 heads over 2; an option and how it is sharded with the batch, and with heads.
def problem(kv_heads=2, batch=2):
    return numbers(batch, 4, 5, 8), numbers(batch, kv_heads, 7, 8), numbers(batch, kv_heads, 7, 3)

def grads(by, **fixed):
    def loss(arrays):
        query, key, value, *others = arrays
        out, lse = fanano.jax.attention(
            query, key, value, **dict(zip(by, others)), return_lse=True, is_causal=True, **fixed
        )
        weights = jnp.arange(out.size).reshape(out.shape) % 7 - 3.0
        return (out * weights).sum() + jnp.sin(lse).sum(), (out, lse)
    # Of integers and masks that are boolean there are none.
    return jax.jit(jax.value_and_grad(loss, has_aux=True, allow_int=True))
"""

AUTOMATIC = """
OPTIONS = {
    "nothing": ((), (), (), ()),
    "mask of each": (("attn_mask",), (numbers(2, 4, 5, 7),), (P("x"),), (P(None, "x"),)),
    "mask of all": (("attn_mask",), (numbers(5, 7),), (P(),), (P(),)),
    "mask by head": (("attn_mask",), (numbers(1, 4, 1, 7),), (P(),), (P(None, "x"),)),
    "lengths": (("kv_lengths", "q_lengths"), (jnp.array([3, 7]), jnp.array([5, 2])),
                (P("x"), P("x")), (P(), P())),
    "sinks": (("sinks", "q_offset"), (numbers(4), jnp.array([1, 2])), (P(), P("x")),
              (P("x"), P())),
}

def agree(arrays, by, others, specs, more, gathered=False):
    call = grads(by)
    expected = call([*arrays, *others])
    placed = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arrays, specs, strict=True)]
    placed += [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(others, more, strict=True)]
    (_, (out, lse)), found = got = call(placed)
    close([out, lse, *found[:1]], [*expected[0][1], *expected[1][:1]], exact=True)
    floats = [i for i, x in enumerate(placed) if x.dtype == "float32"]
    close([found[i] for i in floats], [expected[1][i] for i in floats])
    compiled = call.lower(placed).compile().as_text()
    assert "all-gather" not in compiled and "all-to-all" not in compiled, by
    axis = [i for i, x in enumerate(specs[0]) if x]
    for x in out, lse, found[0]:
        assert [i for i, s in enumerate(x.sharding.spec) if s] == axis, (by, x.sharding)
    return compiled

for by, others, with_batch, with_heads in OPTIONS.values():
    agree(problem(), by, others, [P("x")] * 3, with_batch)
    agree(problem(), by, others, [P(None, "x")] * 3, with_heads)

# One key head of all query heads: each device has it, and its gradients are added up.
text = agree(problem(kv_heads=1), (), (), [P(None, "x"), P(), P()], ())
assert "all-reduce" in text

# What cannot be split is gathered, and right: rows, and heads that devices do not divide.
arrays = problem()
for specs in ([P(None, None, None, "x"), P(), P()], [P(None, None, None, "x"), P("x"), P()]):
    placed = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arrays, specs)]
    close(grads(())(placed), grads(())(arrays))

# What is replicated is computed by everybody.
placed = [jax.device_put(x, NamedSharding(mesh, P())) for x in arrays]
close(grads(())(placed), grads(())(arrays), exact=True)

# Under vmap the batch is one of examples and sequences.
mapped = jax.jit(jax.vmap(lambda *x: fanano.jax.attention(*x)))
many = [jnp.stack([x, -x]) for x in arrays]
placed = [jax.device_put(x, NamedSharding(mesh, P("x"))) for x in many]
close(mapped(*placed), mapped(*many), exact=True)
"""

FOUR = """
square = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))

def agree(arrays, specs, mesh=mesh):
    call = grads(())
    placed = [jax.device_put(x, NamedSharding(mesh, s)) for x, s in zip(arrays, specs, strict=True)]
    got = call(placed)
    close(got, call(list(arrays)))
    return call.lower(placed).compile().as_text()

# One axis of the mesh for the batch of query and the heads of keys, or the reverse.
by_batch, by_heads, nothing = P("x"), P(None, "x"), P()
for mine, theirs in (by_batch, by_heads), (by_heads, by_batch):
    agree(problem(4, 4), (mine, theirs, theirs))
agree(problem(4, 4), (nothing, by_batch, by_heads))

# More devices than heads of keys: the first axis that divides these is used, or none.
by_both = P(None, ("x", "y"))
query_of_half_the_heads = "f32[2,2,5,8]"
assert query_of_half_the_heads not in agree(problem(), (by_heads, nothing, nothing))
for theirs in nothing, by_heads:
    assert query_of_half_the_heads in agree(problem(), (by_both, theirs, theirs), square)
"""

MANUAL = """
shard_map = getattr(jax, "shard_map", None)
if shard_map is None:
    from jax.experimental.shard_map import shard_map

# Heads of queries and keys here, all keys of one head there; sinks by head, lengths of all.
for kv_heads, heads in (2, P(None, "x")), (1, P()):
    query, key, value = problem(kv_heads)
    sinks, lengths = numbers(4), jnp.array([3, 7])
    specs = (P(None, "x"), heads, heads, P("x"), P())

    def attend(query, key, value, sinks, lengths):
        return fanano.jax.attention(query, key, value, sinks=sinks, kv_lengths=lengths)

    def loss(call):
        return jax.jit(jax.value_and_grad(
            lambda *x: (call(*x, lengths) ** 2).sum(), (0, 1, 2, 3)))(query, key, value, sinks)

    over = shard_map(attend, mesh=mesh, in_specs=specs, out_specs=P(None, "x"))
    close(loss(over), loss(attend))
"""


def test_sharded_arrays():
    python(PRELUDE + AUTOMATIC)


def test_four_devices():
    python(PRELUDE.replace("DEVICES = 2", "DEVICES = 4") + FOUR)


def test_shard_map():
    python(PRELUDE + MANUAL)
