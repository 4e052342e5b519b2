"""What JAX is told of CUDA where the module has its kernels: which handlers, for which platforms.
What they do is tested by tests/cuda/xla_handlers_test.cpp, and on a GPU by test_jax_cuda.py."""

from types import SimpleNamespace

import emulated
import numpy as np
import pytest
from jax_arrays import needs_jax, python

from fanano import _core, adapters

try:
    import jax

    import fanano.jax
except ModuleNotFoundError:
    jax = None

pytestmark = [emulated.needs_emulator, needs_jax]

TARGETS = "fanano_attention", "fanano_attention_backward"


def test_handlers_of_both_platforms():
    rows = [(target, platform) for target, platform, _ in _core.xla_handlers()]
    assert sorted(rows) == sorted((t, p) for p in ("cpu", "CUDA") for t in TARGETS)


def test_the_cpu_is_as_before():
    """A jaxlib without CUDA keeps what is registered for it, and minds nothing."""
    python("""
        import jax.numpy as jnp, numpy as np
        import fanano, fanano.jax
        x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype("float32")
        found = fanano.jax.attention(*[jnp.asarray(x)] * 3)
        assert (np.asarray(found) == fanano.attention(x, x, x)).all()
    """)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_it_is_lowered_for_each_platform(platform):
    """To the same custom calls, which XLA looks up by platform."""
    from jax import export

    def loss(query, key, value):
        return fanano.attention(query, key, value, is_causal=True).sum()

    checks = [export.DisabledSafetyCheck.custom_call(target) for target in TARGETS]
    x = jax.ShapeDtypeStruct((2, 4, 9, 8), "float16")
    made = export.export(
        jax.jit(jax.grad(loss, (0, 1, 2))), platforms=[platform], disabled_checks=checks
    )(x, x, x)
    assert made.platforms == (platform,)
    for target in TARGETS:
        assert f"@{target}(" in made.mlir_module()


def test_arrays_on_a_gpu_are_for_the_compiled_function():
    from fanano.adapters import jax as adapter

    x = SimpleNamespace(platform=lambda: "gpu", sharding="GPU:0")
    with pytest.raises(adapters.Watched, match=r"key is on GPU:0, .* jax.device_put") as caught:
        adapter.prepare(("query", "key"), (jax.numpy.zeros(3), x))
    assert caught.value.args[1:] == ("jax", adapter.operators)
    arrays = jax.numpy.ones(3), np.ones(3)
    assert adapter.prepare(("query", "key"), arrays) is arrays
