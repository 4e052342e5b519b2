"""Descriptors that lie or ask for what cannot be, through DLPack; loans that are given back."""

import ctypes

import numpy as np
import pytest
from lender import Lender, new_capsule
from refusals import SENTINEL, good, ones, refuses

import fanano
from fanano import _core

V, T = ValueError, TypeError
SMALL = ones(3, 4)

BIG = 2**62
HOSTILE = {
    "negative rank": ("axes", "x must have at most 64 axes, its description says -1", {"ndim": -1}),
    "huge rank": ("axes", "at most 64 axes, its description says 2147483647", {"ndim": 2**31 - 1}),
    "no shape": ("no_shape", "x has axes but no shape", {"shape": None}),
    "negative extent": (
        "negative_extent",
        r"x of shape \(3, -4\) has a negative extent",
        {"shape": (3, -4)},
    ),
    "too many elements": ("elements", "more elements than 64 bits can count", {"shape": (BIG, 8)}),
    "too many, but empty": (
        "elements",
        "more elements than 64 bits can count",
        {"shape": (BIG, 0, 8), "ndim": 3},
    ),
    "far strides": (
        "far_strides",
        "reaches further than 64 bits can address",
        {"strides": (BIG, BIG)},
    ),
    "far strides back": (
        "far_strides",
        "reaches further than 64 bits can address",
        {"strides": (-BIG, 1)},
    ),
    "strides below 0": (
        "address_space",
        "does not fit in the address space",
        {"strides": (-(2**59), 1)},
    ),
    "no memory": ("null", r"x of shape \(3, 4\) has no memory", {"data": None}),
    "no memory with an offset": ("null", "has no memory", {"data": None, "byte_offset": 4096}),
    "offset out of the address space": (
        "offset",
        "begins outside of the address space",
        {"byte_offset": 2**64 - 4},
    ),
    "offset by parts": (
        "alignment",
        "x is not aligned to its elements of 4 bytes",
        {"byte_offset": 2},
    ),
    "lanes": ("floats", "x must be float64.* it is float of 32 bits in 4 lanes", {"lanes": 4}),
    "no lanes": ("floats", "it is float of 32 bits in 0 lanes", {"lanes": 0}),
    "odd float": ("floats", "it is float of 17 bits", {"bits": 17}),
    "fp8": ("floats", "it is float8_e4m3fn of 8 bits", {"code": 10, "bits": 8}),
    "fp4": ("floats", "it is float4_e2m1fn of 4 bits", {"code": 17, "bits": 4}),
    "wide bfloat": ("floats", "it is bfloat of 32 bits", {"code": 4}),
    "unknown code": ("floats", "it is DLPack code 99 of 32 bits", {"code": 99}),
    "descriptor on CUDA": (
        "device",
        "x must be in the CPU's memory; it is on device CUDA:3",
        {"device_type": 2, "device_id": 3},
    ),
    "unknown device": ("device", "it is on device unknown:0", {"device_type": -5}),
}


@pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_descriptor(name, versioned):
    rule, message, said = HOSTILE[name]
    lender = Lender(SMALL, versioned=versioned, **said)
    refuses(
        lambda: fanano.SoftmaxState().absorb(lender).lse,
        rule,
        message.replace("x ", "scores "),
    )
    assert lender.returned == 1


NAMES = [ctypes.create_string_buffer(name) for name in (b"something else", b"used_dltensor")]
OTHER, USED = (new_capsule(1, ctypes.addressof(name), None) for name in NAMES)
PROTOCOL = {
    **{
        f"device {device}": (
            "device_pair",
            r"x cannot be read as an array: its __dlpack_device__\(\) must return a pair",
            {"device": device},
        )
        for device in [("cpu", 1), (1.0, 0), (2**40, 0), (2**80, 0), (None, None), (1,), [1, 0], 1]
    },
    "an int": ("no_capsule", r"its __dlpack__\(\) returned int", {"capsule": 42}),
    "another capsule": ("no_capsule", r"\(\) returned PyCapsule", {"capsule": OTHER}),
    "used capsule": ("used_capsule", "x lent a DLPack capsule that has been", {"capsule": USED}),
    "DLPack of the future": ("dlpack_version", "x speaks DLPack 2, this library", {"major": 2}),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_what_is_no_loan(name):
    rule, message, said = PROTOCOL[name]
    lender = Lender(SMALL, **said)
    message = message.replace("x ", "scores ")
    refuses(lambda: fanano.SoftmaxState().absorb(lender), rule, message)
    assert lender.returned == ("major" in said)  # the others lent nothing


def test_device_is_asked_before_the_memory():
    lender = Lender(SMALL, device=(2, 1))
    message = "scores must be in the CPU's memory; it is on device CUDA:1"
    refuses(lambda: fanano.SoftmaxState().absorb(lender), "device", message)
    assert lender.returned == 0


def test_consumed_capsule():
    numbers = Lender(ones(4))
    again = Lender(ones(4), capsule=numbers.__dlpack__())
    assert fanano.SoftmaxState().absorb(again).l == 4
    message = "scores lent a DLPack capsule that has been used before"
    refuses(lambda: fanano.SoftmaxState().absorb(again), "used_capsule", message)
    assert numbers.returned == 1


class Fails(Lender):
    def __dlpack__(self, **_):
        raise BufferError("not today")


def test_a_library_that_refuses_is_the_cause():
    with pytest.raises(
        TypeError, match=r"scores cannot be read as an array: .*not today"
    ) as caught:
        fanano.SoftmaxState().absorb(Fails(SMALL))
    assert isinstance(caught.value.__cause__, BufferError)


def test_an_interrupt_passes_unchanged():
    class Interrupted(Lender):
        def __dlpack__(self, **_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fanano.SoftmaxState().absorb(Interrupted(SMALL))


@pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0"])
def test_what_is_lent_is_given_back_once(versioned):
    lender = Lender(ones(4), versioned=versioned)
    assert fanano.SoftmaxState().absorb(lender).l == 4
    assert lender.returned == 1


@pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0"])
def test_empty_arrays_are_not_looked_into(versioned):
    lender = Lender(ones(0), versioned=versioned, data=None, strides=(BIG,))
    assert fanano.SoftmaxState().absorb(lender).lse == -np.inf
    lender = Lender(ones(0), versioned=versioned, data=None, strides=None)
    assert fanano.SoftmaxState().absorb(lender).lse == -np.inf


def test_no_strides_means_contiguous():
    x = np.arange(12, dtype=np.float32)
    assert fanano.SoftmaxState().absorb(Lender(x, strides=None)).m == 11


def test_read_only_flag_of_out():
    query, key, value, out = (Lender(a) for a in good().values())
    out.said["flags"] = 1
    refuses(lambda: fanano.attention(query, key, value, out=out), "read_only", "out is read-only")
    assert (out.array == SENTINEL).all()
    assert [x.returned for x in (query, key, value, out)] == [1, 1, 1, 1]
    out.said["flags"] = 0
    assert fanano.attention(query, key, value, out=out) is out
    assert (out.array == 1).all()


def test_a_type_without_a_way_back():
    arguments = {name: Lender(a) for name, a in good().items() if name != "out"}
    message = "arrays of type Lender can be read, but no result can be made of their type"
    refuses(lambda: fanano.attention(**arguments), TypeError, message)


def test_memory_of_results():
    """It lives as long as anyone has it."""
    buffer = _core.Buffer((2, 3), "float32")
    first, second = np.from_dlpack(buffer), np.from_dlpack(buffer)
    del buffer
    first[:] = 5
    del first
    assert (second == 5).all()
    for options in ({}, {"max_version": (1, 0)}, {"max_version": None}, {"max_version": (0, 8)}):
        capsule = _core.Buffer((2, 0), "bfloat16").__dlpack__(**options)
        assert ("versioned" in repr(capsule)) == (options == {"max_version": (1, 0)})
    refuses(lambda: _core.Buffer((2**62, 2**62), "float32"), "no_memory", "there is no memory")


def test_lengths_are_read_from_the_host():
    arguments = good() | {"kv_lengths": Lender(np.array([1, 2]), code=0, device_type=2)}
    refuses(
        lambda: fanano.attention(**arguments), "device", "kv_lengths must be in the CPU's memory"
    )
    arguments["kv_lengths"] = Lender(np.array([1, 2]), code=0)
    assert fanano.attention(**arguments) is arguments["out"]


def test_flash_needs_no_memory_for_scores():
    # Every element stands at one place, so that shapes may be as large as they like.
    x = np.lib.stride_tricks.as_strided(ones(8), (2**40, 8), (0, 4))
    assert fanano.explain(x, x, x).workspace_bytes == 0
