"""What the tests of JAX's arrays share."""

import subprocess
import sys
import textwrap

import pytest

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError:
    jax = None

needs_jax = pytest.mark.skipif(jax is None, reason="jax is not installed")


def x64(enabled=True):
    """JAX with float64 and int64, for a while."""
    made = getattr(jax, "enable_x64", None)
    if made is None:
        from jax.experimental import enable_x64 as made
    return made(enabled)


def to_jax(x):
    with x64():
        return jnp.asarray(x)


def refused(exception, message, call, *arguments, **options):
    with pytest.raises(exception, match=message) as caught:
        call(*arguments, **options)
    assert caught.type is exception


def python(program):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    subprocess.run(command, check=True, timeout=120)
