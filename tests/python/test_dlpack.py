"""Descriptors that lie or ask for what cannot be, through DLPack; loans that are given back."""

import ctypes

import numpy as np
import pytest
from lender import Lender, new_capsule
from test_errors import SENTINEL, good, ones, refuses

import fanano
from fanano import _core

V, T = ValueError, TypeError
SMALL = ones(3, 4)

BIG = 2**62
HOSTILE = {
    "negative rank": (V, "x must have at most 64 axes, its description says -1", {"ndim": -1}),
    "huge rank": (V, "at most 64 axes, its description says 2147483647", {"ndim": 2**31 - 1}),
    "no shape": (V, "x has axes but no shape", {"shape": None}),
    "negative extent": (V, r"x of shape \(3, -4\) has a negative extent", {"shape": (3, -4)}),
    "too many elements": (V, "more elements than 64 bits can count", {"shape": (BIG, 8)}),
    "too many, but empty": (
        V,
        "more elements than 64 bits can count",
        {"shape": (BIG, 0, 8), "ndim": 3},
    ),
    "far strides": (V, "reaches further than 64 bits can address", {"strides": (BIG, BIG)}),
    "far strides back": (V, "reaches further than 64 bits can address", {"strides": (-BIG, 1)}),
    "strides below 0": (V, "does not fit in the address space", {"strides": (-(2**59), 1)}),
    "no memory": (V, r"x of shape \(3, 4\) has no memory", {"data": None}),
    "no memory with an offset": (V, "has no memory", {"data": None, "byte_offset": 4096}),
    "offset out of the address space": (
        V,
        "begins outside of the address space",
        {"byte_offset": 2**64 - 4},
    ),
    "offset by parts": (V, "x is not aligned to its elements of 4 bytes", {"byte_offset": 2}),
    "lanes": (T, "x must be float64.* it is float of 32 bits in 4 lanes", {"lanes": 4}),
    "no lanes": (T, "it is float of 32 bits in 0 lanes", {"lanes": 0}),
    "odd float": (T, "it is float of 17 bits", {"bits": 17}),
    "fp8": (T, "it is float8_e4m3fn of 8 bits", {"code": 10, "bits": 8}),
    "fp4": (T, "it is float4_e2m1fn of 4 bits", {"code": 17, "bits": 4}),
    "wide bfloat": (T, "it is bfloat of 32 bits", {"code": 4}),
    "unknown code": (T, "it is DLPack code 99 of 32 bits", {"code": 99}),
    "descriptor on CUDA": (
        V,
        "x must be in the CPU's memory; it is on device CUDA:3",
        {"device_type": 2, "device_id": 3},
    ),
    "unknown device": (V, "it is on device unknown:0", {"device_type": -5}),
}


@pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_descriptor(name, versioned):
    exception, message, said = HOSTILE[name]
    lender = Lender(SMALL, versioned=versioned, **said)
    refuses(
        lambda: fanano.SoftmaxState().absorb(lender).lse,
        exception,
        message.replace("x ", "scores "),
    )
    assert lender.returned == 1


def test_device_is_asked_before_the_memory():
    lender = Lender(SMALL, device=(2, 1))
    message = "scores must be in the CPU's memory; it is on device CUDA:1"
    refuses(lambda: fanano.SoftmaxState().absorb(lender), ValueError, message)
    assert lender.returned == 0


@pytest.mark.parametrize(
    "device", [("cpu", 1), (1.0, 0), (2**40, 0), (2**80, 0), (None, None), (1,), [1, 0], 1], ids=str
)
def test_a_device_that_is_none(device):
    message = r"scores cannot be read as an array: its __dlpack_device__\(\) must return a pair"
    refuses(lambda: fanano.SoftmaxState().absorb(Lender(SMALL, device=device)), TypeError, message)


def test_a_dlpack_of_the_future():
    lender = Lender(SMALL, major=2)
    message = "scores speaks DLPack 2, this library speaks DLPack 1"
    refuses(lambda: fanano.SoftmaxState().absorb(lender), TypeError, message)
    assert lender.returned == 1


def test_consumed_capsule():
    numbers = Lender(ones(4))
    again = Lender(ones(4), capsule=numbers.__dlpack__())
    assert fanano.SoftmaxState().absorb(again).l == 4
    message = "scores lent a DLPack capsule that has been used before"
    refuses(lambda: fanano.SoftmaxState().absorb(again), ValueError, message)
    assert numbers.returned == 1


NAME = ctypes.create_string_buffer(b"something else")


@pytest.mark.parametrize(
    "capsule", [42, new_capsule(1, ctypes.addressof(NAME), None)], ids=["an int", "a capsule"]
)
def test_no_dlpack_capsule(capsule):
    message = r"its __dlpack__\(\) returned (int|PyCapsule)"
    refuses(
        lambda: fanano.SoftmaxState().absorb(Lender(SMALL, capsule=capsule)), TypeError, message
    )


def test_a_library_that_refuses_is_the_cause():
    class Refuses(Lender):
        def __dlpack__(self, **_):
            raise BufferError("not today")

    with pytest.raises(
        TypeError, match=r"scores cannot be read as an array: .*not today"
    ) as caught:
        fanano.SoftmaxState().absorb(Refuses(SMALL))
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
    refuses(lambda: fanano.attention(query, key, value, out=out), ValueError, "out is read-only")
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
    refuses(lambda: _core.Buffer((2**62, 2**62), "float32"), ValueError, "there is no memory")


def test_lengths_are_read_from_the_host():
    arguments = good() | {"kv_lengths": Lender(np.array([1, 2]), code=0, device_type=2)}
    refuses(
        lambda: fanano.attention(**arguments), ValueError, "kv_lengths must be in the CPU's memory"
    )
    arguments["kv_lengths"] = Lender(np.array([1, 2]), code=0)
    assert fanano.attention(**arguments) is arguments["out"]


def test_scores_beyond_counting():
    # Every element stands at one place, so that shapes may be as large as they like.
    x = np.lib.stride_tricks.as_strided(ones(8), (2**40, 8), (0, 4))
    refuses(lambda: fanano.explain(x, x, x, algorithm="safe"), ValueError, "algorithm.*safe.*flash")
    assert fanano.explain(x, x, x).workspace_bytes == 0
