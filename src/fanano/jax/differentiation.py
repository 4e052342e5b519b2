"""What JAX's derivatives see of attention. Private."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from .batching import batched
from .operators import Arrays, Options

__all__ = ["attention"]

# What has a derivative; an attn_mask, if it is additive.
_DERIVED = frozenset(("query", "key", "value", "attn_mask", "sinks"))


# Whether one compiled function may be differentiated by different arguments, and keep something
# else each time. With JAX 0.6 it may not (an assertion of its own fails); with 0.10 it may.
_TELLS_APART = jax.__version_info__ >= (0, 10)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attention(options: Options, operands: Arrays) -> tuple[Any, Any]:
    """out and lse, differentiable by query, key, value, an additive attn_mask and sinks."""
    found = _underived("attention", options)(operands)
    return found["out"], found["lse"]


def _forward(options: Options, primals: Arrays) -> Any:
    operands = {name: x.value for name, x in primals.items()}
    asked = [name for name, x in primals.items() if x.perturbed]
    for name in asked:
        if name not in _DERIVED:
            raise NotImplementedError(
                f"a derivative by {name} was asked for, and fanano's attention has none: pass "
                f"jax.lax.stop_gradient({name})"
            )
    found = _underived("attention", options)(operands)
    out, lse = found["out"], found["lse"]
    # Of the backward pass what is not asked for costs nothing; () says in the tree what was.
    told = asked if _TELLS_APART else _DERIVED & operands.keys()
    return (out, lse), (operands, out, lse, dict.fromkeys(told, ()))


def _backward(options: Options, kept: Any, gradients: Any) -> tuple[Arrays]:
    operands, out, lse, asked = kept
    dout, dlse = gradients
    of_mask = "attn_mask" in asked and jnp.issubdtype(operands["attn_mask"].dtype, jnp.floating)
    given = operands | {"out": out, "lse": lse}
    given["dout"] = jnp.zeros_like(out) if isinstance(dout, SymbolicZero) else dout
    if not isinstance(dlse, SymbolicZero):
        given["dlse"] = dlse
    found = _underived("attention_backward", options._replace(grad_mask=of_mask))(given)
    by_name = {"query": found["dq"], "key": found["dk"], "value": found["dv"]}
    if of_mask:
        by_name["attn_mask"] = found["dbias"]
    if "sinks" in operands:
        by_name["sinks"] = found["dsinks"].astype(operands["sinks"].dtype)
    return ({name: by_name.get(name) for name in operands},)


attention.defvjp(_forward, _backward, symbolic_zeros=True)


@lru_cache(1024)
def _underived(operator: str, options: Options) -> Any:
    """A call whose own derivative is asked for by second and forward-mode derivatives alone."""

    @jax.custom_jvp
    def function(operands: Arrays) -> Arrays:
        return batched(operator, options, operands)

    @function.defjvp
    def refuse(primals: Any, tangents: Any) -> NoReturn:
        raise NotImplementedError(
            "fanano's attention has no second derivative: differentiate it once, or use "
            "jax.nn.dot_product_attention where you need more"
        )

    return function
