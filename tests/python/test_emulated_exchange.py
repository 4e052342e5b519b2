"""Attention on CUDA arrays of a library with DLPack's C exchange, as torch has it, on the emulator:
results and workspaces are what the library makes there."""

import compare
import emulated
import numpy as np
import pytest
from cases import Case
from cuda_cases import PLAIN
from emulated import Array
from emulated_exchange import Exchanged
from refusals import refuses

import fanano

pytestmark = emulated.needs_emulator

HERE, STREAM = 1, 7
MASK = PLAIN | {"heads": (2, 2, 1, 4), "mask": "float32 (Sq, Sk)", "sinks": True}


@pytest.fixture(autouse=True)
def library():
    Exchanged.begin(HERE, STREAM)
    with emulated.machine(devices=2):
        yield
    assert not Exchanged.pending


def sent(*arrays):
    return [Exchanged(Array(x, HERE)) for x in arrays]


def options_of(case):
    return {name: sent(x)[0] if isinstance(x, np.ndarray) else x
            for name, x in case.options.items()}  # fmt: skip


def is_ours(x):
    """Made by the library, on the device of the call; what was lent for that is the object's now,
    whose memory is not given back before it ends."""
    return type(x) is Exchanged and x.memory.device == (2, HERE) and x.memory.returned == 0


def on_stream():
    calls = emulated.calls()
    launches = [(device, stream) for name, device, stream in calls if "_kernel" in name]
    assert launches
    assert set(launches) == {(HERE, STREAM)}
    # Memory is the library's; nothing waits.
    return not [name for name, *_ in calls if "Async" in name or "Sync" in name or "Event" in name]


@pytest.mark.parametrize("algorithm", ["flash", "safe"])
@pytest.mark.parametrize("dtype", compare.DTYPES)
def test_results_are_the_librarys(dtype, algorithm):
    case = Case(dtype, algorithm=algorithm, **PLAIN)
    given = sent(*case.arrays())
    emulated.calls()
    out, lse = fanano.attention(*given, algorithm=algorithm, return_lse=True, **case.options)
    assert on_stream()
    assert is_ours(out)
    assert is_ours(lse)
    kind = str(compare.accumulator(dtype))
    shape = 1, 2, 9, 64
    assert Exchanged.asked[:2] == [(shape, dtype, HERE), (shape[:3], kind, HERE)]
    # The workspace, where there is one, is the library's as well.
    assert all((dtype, device) == ("float64", HERE) for _, dtype, device in Exchanged.asked[2:])
    compare.judge_attention(out.numpy(), lse.numpy(), *case.arrays(), **case.options)


def test_gradients_are_the_librarys():
    case = Case("float16", **MASK)
    options = options_of(case)
    query, key, value = given = sent(*case.arrays())
    dout, dlse = sent(*case.upstream())
    out, lse = fanano.attention(*given, return_lse=True, **options)
    Exchanged.asked.clear(), emulated.calls()
    got = fanano.attention_backward(
        dout, query, key, value, out, lse, dlse=dlse, grad_mask=True, **options
    )
    assert on_stream()
    assert all(map(is_ours, got))
    *results, (room, dtype, _) = Exchanged.asked
    shapes = [x.memory.array.shape for x in (*given, options["attn_mask"], options["sinks"])]
    dtypes = ["float16"] * 3 + ["float32"] * 2
    assert results == [(s, d, HERE) for s, d in zip(shapes, dtypes, strict=True)]
    assert (len(room), dtype) == (1, "float64")  # the workspace
    judgement = compare.GradientJudgement(str(case))
    dout, dlse = case.upstream()
    got = fanano.Gradients(*(x.numpy() for x in got))
    assert all(x.any() for x in got)
    judgement.add(got, *case.arrays(), dout, dlse=dlse, **case.options)
    judgement.verdict()


def test_when_memory_is_given_back():
    """A result's when it ends, the workspace's when the call does."""
    given = sent(*Case("float16", **PLAIN).arrays())
    out = fanano.attention(*given, algorithm="safe")
    (shape, *_), (room, *_) = Exchanged.asked
    assert Exchanged.ended == [room]
    del out
    assert Exchanged.ended == [room, shape]


def test_out():
    """What is to be written is lent with its flags, and given back; what is read lies there."""
    case = Case("float16", **PLAIN)
    given = sent(*case.arrays())
    expected = fanano.attention(*given, **case.options)
    out = Exchanged(Array(np.empty_like(expected.memory.array), HERE, fill=False))
    Exchanged.asked.clear()
    assert fanano.attention(*given, out=out, **case.options) is out
    assert not [shape for shape, *_ in Exchanged.asked if len(shape) > 1]
    assert out.memory.returned == 1
    assert all(x.memory.returned == 0 for x in given)  # not even lent
    assert out.numpy().tobytes() == expected.numpy().tobytes()
    out.memory.said["flags"] = 1
    refuses(lambda: fanano.attention(*given, out=out), "read_only", "out is read-only")
    assert out.memory.returned == 2


def test_what_the_library_does_not_make():
    query, key, value = sent(*Case("float16", **PLAIN).arrays())

    def call():
        fanano.attention(query, key, value)

    shape = 1, 2, 9, 64
    Exchanged.makes = shape[::-1], "float16", HERE
    refuses(call, "made_otherwise", "out")
    Exchanged.makes = shape, "float32", HERE
    refuses(call, "made_otherwise", "out")
    Exchanged.makes = shape, "float16", 0
    refuses(call, "made_elsewhere", "out")
    Exchanged.makes = None
    Exchanged.converts = False
    refuses(call, "unreadable", "out")
    Exchanged.room = False
    refuses(call, "not_made", "out of shape .* no room")
    assert Exchanged.asked == [(shape, "float16", HERE)] * 5


def test_arrays_elsewhere():
    """There, streams are others."""
    query, key, value = sent(*Case("float16", **PLAIN).arrays())
    elsewhere = Exchanged(Array(key.memory.array, 0))
    words = "key must be on the device of query, CUDA:1; it is on CUDA:0"
    refuses(lambda: fanano.attention(query, elsewhere, value), "same_device", words)
