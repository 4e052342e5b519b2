"""Arrays on a CUDA device, as far as can be told where there is none: what is refused of them, and
that nothing there is looked at. Their memory is what nobody may touch."""

import itertools
import mmap

import numpy as np
import pytest
from guarded import Pages
from lender import Lender, Shared, exchange_type
from refusals import good, ones, refuses

import fanano

NOWHERE = Pages(1024 * mmap.PAGESIZE)
NOWHERE.forbid(0, NOWHERE.size)
PLACES = itertools.cycle(range(1, 1024))
CODES = {"f": 2, "i": 0, "u": 1, "b": 6}


def nowhere():
    """For one array."""
    return NOWHERE.address + next(PLACES) * mmap.PAGESIZE


def on_device(array, device=(2, 0), **said):
    """What a library lends that has such an array on a device."""
    said = {"code": CODES[array.dtype.kind], "data": nowhere(), **said}
    return Shared(array, device=device, device_type=device[0], device_id=device[1], **said)


def lent(**wrong):
    """A good call, all on one device; but for what is wrong."""
    return {name: on_device(x) for name, x in good().items()} | wrong


def exchanged(array, stream):
    """The same by DLPack's C exchange, whose library works on a stream."""
    kind = exchange_type(array, (2, 0), stream)
    return type("Exchanged", (kind,), {"__dlpack__": None, "__module__": Lender.__module__})()


class Old(Lender):
    """From before DLPack 1: it does not know max_version."""

    __module__ = Lender.__module__

    def __dlpack__(self, *, stream):
        return super().__dlpack__(stream=stream)


here = any(kernel.device == "cuda" and kernel.runnable for kernel in fanano.kernels())
goes_on = pytest.mark.skipif(here, reason="a device is here, which would read what cannot be read")

INTS = np.array([1, 2])
KEY, OUT = good()["key"], good()["out"]

# By which row it is refused, words of the message, what is wrong in a good call.
DEVICES = {
    "nothing": (
        "no_cuda",
        r"attention cannot run on a CUDA device: .* CUDA .*\. Copy .* x\.cpu\(\)",
        {},
    ),
    "host lists": ("no_cuda", "cannot run on a CUDA device", {"kv_lengths": [1, 2]}),
    "host arrays": ("no_cuda", "cannot run", {"q_offset": INTS, "sinks": np.zeros(4)}),
    "device arrays": (
        "no_cuda",
        "cannot run",
        {
            "kv_lengths": on_device(INTS),
            "q_lengths": on_device(INTS),
            "q_offset": on_device(INTS),
            "alibi_slopes": on_device(np.zeros((2, 4))),
            "sinks": on_device(np.zeros(4)),
            "attn_mask": on_device(np.zeros((6, 5), bool)),
        },
    ),
    "managed memory": ("no_cuda", "cannot run", {"key": on_device(KEY, (13, 0))}),
    "shapes are checked first": (
        "dim",
        "must be 1 to 576",
        {
            "query": on_device(ones(2, 4, 6, 0)),
            "key": on_device(ones(2, 2, 5, 0)),
        },
    ),
    "key on the CPU": (
        "same_device",
        "key must be on the device of query, CUDA:0; it is on CPU",
        {"key": Lender(KEY)},
    ),
    "value on the next": (
        "same_device",
        "value must be on the device of query, CUDA:0; it is on CUDA:1",
        {"value": on_device(good()["value"], (2, 1))},
    ),
    "query on the CPU": (
        "same_device",
        "key must be on the device of query, CPU; it is on CUDA:0",
        {"query": Lender(good()["query"])},
    ),
    "out on the CPU": (
        "same_device",
        "out must be on the device of query",
        {"out": Lender(ones(2, 4, 6, 3))},
    ),
    "mask on the CPU": (
        "same_device",
        "attn_mask must be on the device of query, CUDA:0; it is on CPU",
        {"attn_mask": np.zeros((6, 5), bool)},
    ),
    "lengths on the next": (
        "same_device",
        "kv_lengths must be on the device of query, CUDA:0; it is on CUDA:1",
        {"kv_lengths": on_device(INTS, (2, 1))},
    ),
    "no such memory": (
        "device",
        "key must be in the CPU's memory; it is on device ROCm:0",
        {
            "key": on_device(KEY, (10, 0)),
        },
    ),
    "device arrays of other kinds": (
        "no_cuda",
        "cannot run",
        {
            "kv_lengths": on_device(INTS.astype(np.int32)),
            "q_offset": on_device(np.array(3)),
            "alibi_slopes": on_device(np.array(3.0)),
            "sinks": on_device(ones(8)[::2]),
        },
    ),
    "int16 lengths": (
        "integers",
        "kv_lengths must be int32 or int64; it is int of 16 bits",
        {"kv_lengths": on_device(INTS.astype(np.int16))},
    ),
    "integers for slopes": (
        "floats",
        "alibi_slopes must be float64, float32, .*; it is int of 64 bits",
        {"alibi_slopes": on_device(np.arange(4))},
    ),
    "sinks for nobody": (
        "by_head",
        r"sinks must have shape \(Hq,\), \(4,\); it has shape \(3,\)",
        {"sinks": on_device(np.zeros(3))},
    ),
    "a read-only out": (
        "read_only",
        "out is read-only",
        {"out": on_device(good()["out"], flags=1)},
    ),
    "out is query": (
        "overlap",
        "out shares its memory range with query",
        {
            "query": on_device(good()["query"], data=NOWHERE.address),
            "out": on_device(good()["out"], data=NOWHERE.address + 16),
        },
    ),
    "another stream": (
        "other_stream",
        "attn_mask must be of a library that works on the CUDA stream of query",
        {"query": exchanged(good()["query"], 7), "attn_mask": exchanged(ones(6, 5), 8)},
    ),
    "no stream": (
        "unreadable",
        "query cannot be read as an array: its library's DLPack exchange failed",
        {"query": exchanged(good()["query"], None)},
    ),
}


@pytest.mark.parametrize("name", DEVICES)
def test_devices(name):
    rule, message, wrong = DEVICES[name]
    if rule == "no_cuda" and here:
        pytest.skip(goes_on.kwargs["reason"])
    arguments = lent(**wrong)
    refuses(lambda: fanano.attention(**arguments), rule, message)
    lenders = [x for x in arguments.values() if isinstance(x, Lender)]
    assert all(x.returned <= 1 for x in lenders)
    if rule == "no_cuda":
        assert all(x.returned == 1 for x in lenders)


@goes_on
@pytest.mark.parametrize(
    ("query", "stream"),
    [
        (on_device(good()["query"]), 1),  # the legacy default stream, for nobody says more
        (exchanged(good()["query"], 7), 7),
        (exchanged(good()["query"], 0), 1),  # CUDA calls it 0 as well; DLPack does not
    ],
    ids=["capsule", "exchange", "exchange, default"],
)
def test_who_lends_is_told_the_stream(query, stream):
    arguments = lent(query=query, kv_lengths=on_device(INTS), attn_mask=on_device(ones(6, 5)))
    refuses(lambda: fanano.attention(**arguments), "no_cuda", "cannot run")
    for name in ("key", "value", "out", "kv_lengths", "attn_mask"):
        assert arguments[name].asked == {"max_version": (1, 3), "stream": stream}


@goes_on
def test_before_dlpack_1():
    key = Old(KEY, versioned=False, device=(2, 0), device_type=2, data=nowhere())
    refuses(lambda: fanano.attention(**lent(key=key)), "no_cuda", "cannot run")
    assert key.asked == {"stream": 1}


@goes_on
def test_gradients():
    arrays = lent(kv_lengths=on_device(INTS.astype(np.int32)), sinks=on_device(ones(4)))
    arrays |= {"dout": on_device(ones(2, 4, 6, 3)), "lse": on_device(ones(2, 4, 6))}
    refuses(lambda: fanano.attention_backward(**arrays), "no_cuda", "cannot run")
    assert all(x.returned == 1 and x.asked["stream"] == 1 for x in arrays.values())
    arrays["lse"] = Lender(ones(2, 4, 6))
    refuses(lambda: fanano.attention_backward(**arrays), "same_device", "lse must be on the device")


def test_arrays_of_the_cpu_have_no_stream():
    query, key, value, out = (Lender(x) for x in good().values())
    fanano.attention(query, key, value, out=out)
    assert query.asked == out.asked == {"max_version": (1, 3)}


def test_a_capsule_that_is_elsewhere():
    """Its library was not told of a stream."""
    arguments = lent(key=on_device(KEY, (2, 0)))
    arguments["key"].device = (1, 0)
    refuses(
        lambda: fanano.attention(**arguments), "device", "key must be in the CPU's memory.* CUDA:0"
    )


def test_everything_else_is_the_cpus():
    x = on_device(ones(3, 4))
    like = lent()
    for argument, call in {
        "x": lambda: fanano.softmax(x),
        "scores": lambda: fanano.SoftmaxState().absorb(on_device(ones(3))),
        "out_a": lambda: fanano.merge_states(x, on_device(ones(3)), x, on_device(ones(3))),
        "query": lambda: fanano.explain(like["query"], like["key"], like["value"]),
    }.items():
        message = f"{argument} must be in the CPU's memory; it is on device CUDA:0"
        refuses(call, "device", message)
