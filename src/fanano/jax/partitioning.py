"""Arrays that are spread over devices: sequences and heads are computed where they are. Private.

A batch and heads that are sharded stay so, in every array that has them; rows, keys and dims are
gathered. Gradients that are sums over what is sharded (of a mask or sinks that sequences share, of
the one key head of all query heads) are added up over the devices.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from functools import lru_cache, partial
from inspect import signature
from math import prod
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from .operators import Arrays, Options, axes_of, call, results_of

__all__ = ["partitioned"]


def partitioned(operator: str, options: Options, operands: Arrays) -> Arrays:
    """``operators.call``, which XLA may split."""
    shapes = tuple(sorted((name, x.shape) for name, x in operands.items()))
    found: Arrays = _splittable(operator, options, shapes)(operands)
    return found


@lru_cache(1024)
def _splittable(operator: str, options: Options, shapes: tuple[Any, ...]) -> Any:
    function = custom_partitioning(partial(call, operator, options))
    given = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes}
    results = sorted(results_of(operator, options, given).items())
    rule = _rule(shapes, [(name, x.shape) for name, x in results], options.layout)

    def infer(mesh: Any, arguments: Any, results: Any) -> Any:
        return Split(mesh, arguments[0], options.layout).shardings(results)

    def partition(mesh: Any, arguments: Any, results: Any) -> Any:
        split = Split(mesh, arguments[0], options.layout)

        def of_a_device(operands: Arrays) -> Arrays:
            found = call(operator, options, split.moved(operands))
            return {name: split.summed(name, x, results[name].shape) for name, x in found.items()}

        return mesh, of_a_device, split.shardings(results), (split.shardings(arguments[0]),)

    shardy: dict[str, Any] = {}
    if "need_replication_factors" in signature(function.def_partition).parameters:
        factors = dict.fromkeys(re.findall(r"\w+", rule))  # in their order, as Shardy wants them
        whole = tuple(x for x in factors if x in ("q", "k", "d", "e", "w"))
        shardy = {"sharding_rule": rule, "need_replication_factors": whole}
    # Before JAX 0.7 the partitioner was GSPMD, which asks the functions.
    function.def_partition(partition, infer_sharding_from_operands=infer, **shardy)
    return function


def _rule(operands: Any, results: Any, layout: str) -> str:
    """Which axes go together, in Shardy's notation. Heads of queries and of fewer keys do not: an
    axis of the mesh may divide the first alone, and part of an axis is nothing that JAX can say."""
    shapes = dict(operands)
    query, key = shapes["query"], shapes["key"]
    heads = query[axes_of("query", 4, layout).index("h")]
    key_heads = key[axes_of("key", 4, layout).index("g")]
    names = {"h": "g" if heads == key_heads else "r"}
    ones = (f"one{i}" for i in range(100))

    def of(array: tuple[str, tuple[int, ...]]) -> str:
        name, shape = array
        broadcast = name in ("attn_mask", "dbias")
        return " ".join(
            next(ones) if broadcast and extent == 1 else names.get(axis, axis)
            for axis, extent in zip(axes_of(name, len(shape), layout), shape, strict=True)
        )

    return f"{', '.join(map(of, operands))} -> {', '.join(map(of, results))}"


class Split:
    """How a call is dealt out to the devices of a mesh."""

    def __init__(self, mesh: Any, operands: Arrays, layout: str) -> None:
        self.mesh, self.layout = mesh, layout
        sizes: dict[str, int] = {}
        found: dict[tuple[bool, str], Any] = {}  # by whether it is query's own
        for name in "query", "key", "value":
            x = operands[name]
            spec = (*x.sharding.spec, *(None,) * x.ndim)
            for axis, extent, names in zip(axes_of(name, 4, layout), x.shape, spec, strict=False):
                sizes[axis] = extent
                if not found.get((name == "query", axis)):
                    found[name == "query", axis] = names
        # An axis of the mesh is either the batch's or that of the heads. Query's own place wins.
        batch, heads = found[True, "b"], found[True, "h"]
        batch = batch or _without(heads, found[False, "b"])
        heads = heads or _without(batch, found[False, "g"])
        shared = sizes["g"] == 1  # by all query heads: each device has all of it
        self.shared = shared and sizes["h"] > 1
        batch = self._dividing(batch, sizes["b"])
        heads = self._dividing(heads, sizes["h"] if self.shared else sizes["g"])
        self.along = {"b": batch, "h": heads, "g": None if self.shared else heads}

    def _dividing(self, names: Any, extent: int) -> Any:
        """As many of these axes of the mesh, the first ones, as divide this extent; or None."""
        names = _tuple(names)
        while extent % prod(self.mesh.shape[name] for name in names):
            names = names[:-1]
        return names or None

    def shardings(self, arrays: Arrays) -> dict[str, NamedSharding]:
        return {
            name: NamedSharding(self.mesh, PartitionSpec(*self._spec(name, x.shape)))
            for name, x in arrays.items()
        }

    def _spec(self, name: str, shape: tuple[int, ...]) -> list[Any]:
        axes = axes_of(name, len(shape), self.layout)
        return [
            None if extent == 1 else self.along.get(axis)
            for axis, extent in zip(axes, shape, strict=True)
        ]

    def moved(self, operands: Arrays) -> Arrays:
        """With the place of this device's first sequence and head: what is dropped does not depend
        on how many devices there are."""
        if "dropout" not in operands:
            return operands
        words, shape = operands["dropout"], operands["query"].shape
        sizes = dict(zip(axes_of("query", 4, self.layout), shape, strict=True))
        for at, axis in ((2, "b"), (3, "h")):
            if names := _tuple(self.along[axis]):
                first = jax.lax.axis_index(names) * sizes[axis]
                words = words.at[at].add(first.astype(words.dtype))
        return operands | {"dropout": words}

    def summed(self, name: str, x: Any, shape: tuple[int, ...]) -> Any:
        """A gradient of this shape, over the devices that each have a part of its sum."""
        over: tuple[Any, ...] = ()
        if name == "dsinks":
            over = _tuple(self.along["b"])
        elif name == "dbias":
            axes = [axis for axis, extent in zip("bh", shape, strict=False) if extent == 1]
            over = tuple(n for axis in axes for n in _tuple(self.along[axis]))
        elif name in ("dk", "dv") and self.shared:
            over = _tuple(self.along["h"])
        return jax.lax.psum(x, over) if over else x


def _without(used: Any, names: Any) -> tuple[Any, ...]:
    return tuple(name for name in _tuple(names) if name not in _tuple(used))


def _tuple(names: Any) -> tuple[Any, ...]:
    if names is None:
        return ()
    return names if isinstance(names, tuple) else (names,)
