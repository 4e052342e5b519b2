"""onnxruntime: a model of one attention operator, whichever of its three is made for the case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, Inputs
from ..cases import Case
from .peer import Bound, CannotRun, Peer, Prepared

Named = dict[str, Any]


class OnnxRuntime(Peer):
    name = "onnxruntime"
    library = "onnxruntime"
    packages = ("onnxruntime", "onnx")

    def start(self, threads: int) -> str:
        import onnxruntime

        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return f"intra_op_num_threads={threads}, session.intra_op.allow_spinning=0"

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        if case.dtype == "bfloat16":
            raise CannotRun("has no bfloat16 attention for CPUs")
        if case.causal or case.rows < case.keys:
            return self.grouped(case, sets)
        if case.heads == case.kv_heads:
            return self.multi_head(case, sets)
        inputs = [one._asdict() for one in sets]
        return self.model("Attention", {}, case, inputs, [case_shape(case)], lambda out: out)

    def multi_head(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        """MultiHeadAttention, the flash one: neither causal nor with shared heads."""
        inputs = [{name: packed(x) for name, x in one._asdict().items()} for one in sets]
        return self.model(
            "MultiHeadAttention", {"num_heads": case.heads}, case, inputs, [packed_shape(case)]
        )

    def grouped(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        """GroupQueryAttention, causal. Of all rows at once, the keys are written into a new cache;
        of one row, its key into the last place of the cache that is given."""
        attributes = {"num_heads": case.heads, "kv_num_heads": case.kv_heads}
        cache = (case.batch, case.kv_heads, case.keys, case.dim)
        rest = {
            "seqlens_k": np.full(case.batch, case.keys - 1, np.int32),
            "total": np.array([case.keys], np.int32),
        }
        inputs: list[Named] = []
        for one in sets:
            new = [packed(x[:, :, case.keys - case.rows :]) for x in (one.key, one.value)]
            past = {"past_key": one.key, "past_value": one.value}
            empty = dict.fromkeys(past)  # the names of absent inputs are empty
            named: Named = {"query": packed(one.query), "key": new[0], "value": new[1]}
            inputs.append(named | (past if case.rows < case.keys else empty) | rest)
        shapes = [packed_shape(case), cache, cache]
        return self.model("GroupQueryAttention", attributes, case, inputs, shapes)

    def model(
        self,
        operator: str,
        attributes: Named,
        case: Case,
        inputs: Sequence[Named],
        shapes: Sequence[Sequence[int]],
        unpack: Callable[[Array], Array] | None = None,
    ) -> Prepared:
        """A session of one operator, its inputs and outputs bound beforehand, once for each set."""
        from onnx import helper
        from onnxruntime import InferenceSession, OrtValue

        present = {name: x for name, x in inputs[0].items() if x is not None}
        outputs = ["out", "present_key", "present_value"][: len(shapes)]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(case.dtype))
        described = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in present.items()
        ]
        results = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, shape in zip(outputs, shapes, strict=True)
        ]
        domain = "" if operator == "Attention" else "com.microsoft"
        names = [name if name in present else "" for name in inputs[0]]
        node = helper.make_node(operator, names, outputs, domain=domain, **attributes)
        graph = helper.make_graph([node], "attention", described, results)
        versions = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        session = InferenceSession(
            model.SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )

        def bound(named: Named) -> Bound:
            binding = session.io_binding()
            values = {n: OrtValue.ortvalue_from_numpy(named[n]) for n in present}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                shared = values.get(name.replace("present", "past"))
                if shared is None:
                    binding.bind_output(name)
                else:  # the last row is written again as it was
                    binding.bind_ortvalue_output(name, shared)

            return Bound(partial(session.run_with_iobinding, binding), binding, values)

        def to_array(binding: Any) -> Array:
            out = np.asarray(binding.get_outputs()[0].numpy())
            return (unpack or unpacked(case))(out)

        return Prepared([bound(named) for named in inputs], to_array, operator)


def packed(x: Array) -> Array:
    """(batch, heads, rows, dim) as (batch, rows, heads * dim)."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape[0], x.shape[2], -1)


def unpacked(case: Case) -> Callable[[Array], Array]:
    return lambda x: x.reshape(case.batch, case.rows, case.heads, case.dim).swapaxes(1, 2)


def packed_shape(case: Case) -> Sequence[int]:
    return (case.batch, case.rows, case.heads * case.dim)


def case_shape(case: Case) -> Sequence[int]:
    return (case.batch, case.heads, case.rows, case.dim)
