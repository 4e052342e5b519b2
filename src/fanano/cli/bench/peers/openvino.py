"""OpenVINO's ScaledDotProductAttention: alone, and for one row with the keys and values in a state.

Without a state it would transpose all keys at each call of one row, which no user of it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, Inputs, numpy_dtype
from ..cases import Case
from .peer import Bound, Peer, Prepared

PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class OpenVino(Peer):
    name = "openvino"
    library = "openvino"
    packages = ("openvino",)

    def start(self, threads: int) -> str:
        import openvino

        self.core = openvino.Core()
        self.settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        return f"INFERENCE_NUM_THREADS={threads}, NUM_STREAMS=1, no pinning; its threads sleep"

    def prepare(self, case: Case, sets: Sequence[Inputs]) -> Prepared:
        stateful = case.rows < case.keys
        precision = PRECISION[case.dtype]
        settings = self.settings | {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        model = with_state(case) if stateful else stateless(case)
        compiled = self.core.compile_model(model, "CPU", settings)

        def request(one: Inputs) -> Bound:
            asked = compiled.create_infer_request()
            arrays: list[Array] = list(one)
            held: list[Array] = []
            if stateful:
                # All but the last row lies in the state. Each call appends that row again, so the
                # state grows by a row a call.
                past = {"key": one.key[:, :, :-1], "value": one.value[:, :, :-1]}
                for state in asked.query_state():
                    state.state = tensor(past[state.name], case, held)
                last = [np.ascontiguousarray(x[:, :, -1:]) for x in (one.key, one.value)]
                arrays = [one.query, *last, np.arange(case.batch, dtype=np.int32)]
            for index, x in enumerate(arrays):
                asked.set_input_tensor(index, tensor(x, case, held))

            return Bound(partial(asked.infer, share_outputs=True), asked, held)

        def to_array(asked: Any) -> Array:
            out = np.array(asked.get_output_tensor(0).data)
            return out if out.dtype == np.float32 else out.view(numpy_dtype(case.dtype))

        what = "with a state" if stateful else ""
        return Prepared([request(one) for one in sets], to_array, what)


def tensor(x: Array, case: Case, held: list[Array]) -> Any:
    from openvino import Tensor, Type

    x = np.ascontiguousarray(x)
    held.append(x)
    if case.dtype == "bfloat16" and x.dtype != np.int32:
        return Tensor(x.view(np.uint16), list(x.shape), Type.bf16)  # it does not know ml_dtypes
    return Tensor(x, shared_memory=True)


def parameters(case: Case, rows: int, keys: int) -> list[Any]:
    from openvino import PartialShape, Type
    from openvino import opset13 as op

    kind = getattr(Type, PRECISION[case.dtype])
    shapes = [(case.heads, rows), *[(case.kv_heads, keys)] * 2]
    return [op.parameter(PartialShape([case.batch, *s, case.dim]), kind) for s in shapes]


def stateless(case: Case) -> Any:
    from openvino import Model
    from openvino import opset13 as op

    query, key, value = parameters(case, case.rows, case.keys)
    shared = [shared_heads(x, case) for x in (key, value)]
    out = op.scaled_dot_product_attention(query, *shared, causal=case.causal)
    return Model([op.result(out)], [query, key, value], "attention")


def with_state(case: Case) -> Any:
    """What OpenVINO makes of a language model's attention, and fuses with its cache."""
    from openvino import Model, PartialShape, Type
    from openvino import opset13 as op
    from openvino.op.util import Variable, VariableInfo

    kind = getattr(Type, PRECISION[case.dtype])
    query, key, value = parameters(case, -1, -1)
    beam = op.parameter(PartialShape([case.batch]), Type.i32)
    empty = op.constant(np.array([case.batch, case.kv_heads, 0, case.dim]))
    grown, kept = [], []
    for name, new in (("key", key), ("value", value)):
        info = VariableInfo()
        info.data_shape = PartialShape([case.batch, case.kv_heads, -1, case.dim])
        info.data_type = kind
        info.variable_id = name
        variable = Variable(info)
        past = op.read_value(op.broadcast(op.constant(0.0, kind), empty), variable)
        whole = op.concat([op.gather(past, beam, op.constant(0, Type.i64)), new], 2)
        kept.append(op.assign(whole, variable))
        grown.append(shared_heads(whole, case))
    out = op.scaled_dot_product_attention(query, *grown, causal=False)
    return Model([op.result(out)], kept, [query, key, value, beam], "attention")


def shared_heads(x: Any, case: Case) -> Any:
    """Key heads that serve several query heads each, as OpenVINO's models say it."""
    from openvino import Type
    from openvino import opset13 as op

    if case.heads == case.kv_heads:
        return x
    group = op.constant(np.array([1, 1, case.heads // case.kv_heads, 1, 1]))
    apart = op.unsqueeze(x, op.constant(2, Type.i64))
    repeated = op.broadcast(apart, group, broadcast_spec="BIDIRECTIONAL")
    return op.reshape(repeated, op.constant(np.array([0, case.heads, -1, case.dim])), True)
