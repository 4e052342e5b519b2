"""Each library's arrays: the same bits, the caller's own type, and never wrong numbers."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import DTYPES, bits, numbers, problem, to_torch
from lender import Lender, Shared
from refusals import refuses

import fanano
from fanano import _core

# ---- NumPy and torch agree -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["flash", "safe"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_and_torch_give_the_same_bits(dtype, algorithm):
    arrays = problem(dtype)
    options = {"is_causal": True, "return_lse": True, "algorithm": algorithm}
    out, lse = fanano.attention(*arrays, **options)
    assert type(out) is type(lse) is np.ndarray
    assert out.dtype == arrays[0].dtype
    assert out.shape == (2, 4, 33, 24)
    assert lse.shape == (2, 4, 33)
    assert lse.dtype == (np.float64 if dtype == "float64" else np.float32)

    out_, lse_ = fanano.attention(*map(to_torch, arrays), **options)
    assert type(out_) is type(lse_) is torch.Tensor
    assert out_.dtype is getattr(torch, dtype)
    assert bits(out_) == bits(out)
    assert bits(lse_) == bits(lse)
    few = [arrays[0][:, :, :3], *arrays[1:]]  # a decode
    assert bits(fanano.attention(*map(to_torch, few))) == bits(fanano.attention(*few))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_merging_give_the_same_bits(dtype):
    x = numbers(3, 50, dtype=dtype)
    soft = fanano.softmax(x, axis=0)
    assert soft.dtype == x.dtype
    assert bits(fanano.softmax(to_torch(x), axis=0)) == bits(soft)
    assert (
        fanano.SoftmaxState().absorb(to_torch(x)[1]).lse == fanano.SoftmaxState().absorb(x[1]).lse
    )
    lse = np.zeros(3, "float64" if dtype == "float64" else "float32")
    merged = fanano.merge_states(x, lse, x, lse)
    merged_ = fanano.merge_states(*map(to_torch, (x, lse, x, lse)))
    assert [type(m) for m in merged_] == [torch.Tensor] * 2
    assert [bits(m) for m in merged_] == [bits(m) for m in merged]


VIEWS = {
    "rows before heads": lambda x: np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2),
    "columns before rows": lambda x: np.ascontiguousarray(x.swapaxes(2, 3)).swapaxes(2, 3),
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "inside a larger array": lambda x: np.pad(x, ((1, 1),) * 4)[1:-1, 1:-1, 1:-1, 1:-1],
}
BACKWARDS = {
    "rows backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1],
    "columns backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", VIEWS | BACKWARDS)
def test_strides_do_not_change_bits(view, dtype):
    arrays = problem(dtype)
    out = fanano.attention(*arrays)
    views = [(VIEWS | BACKWARDS)[view](x) for x in arrays]
    assert all(
        (v == x).all() and v.strides != x.strides for v, x in zip(views, arrays, strict=True)
    )
    assert bits(fanano.attention(*views)) == bits(out)
    target = (VIEWS | BACKWARDS)[view](np.zeros_like(out))
    assert fanano.attention(*views, out=target) is target
    assert bits(target) == bits(out)
    if view in VIEWS:  # torch has no negative strides
        assert bits(fanano.attention(*map(to_torch, views))) == bits(out)


def test_broadcasting_is_not_a_copy():
    query, key, value = problem()
    many = np.broadcast_to(key[:1], (2**40, *key.shape[1:]))
    assert (
        fanano.explain(np.broadcast_to(query[:1], (2**40, *query.shape[1:])), many, many).device
        == "cpu"
    )
    one = fanano.attention(query[:1], key[:1], value[:1])
    same = fanano.attention(query[:1], key[:1, :1], np.broadcast_to(value[:1, :1], (1, 1, 40, 24)))
    assert same.shape == one.shape
    twice = fanano.attention(*(np.broadcast_to(x[:1], x.shape) for x in (query, key, value)))
    assert bits(twice[1]) == bits(one)


def test_read_only_inputs():
    arrays = problem()
    out = fanano.attention(*arrays)
    for x in arrays:
        x.flags.writeable = False
    assert bits(fanano.attention(*arrays)) == bits(out)


def test_lengths_come_from_anywhere():
    arrays = problem()
    expected = bits(
        fanano.attention(*arrays, kv_lengths=[3, 40], q_lengths=(33, 7), q_offset=[0, 2])
    )
    for made in (
        lambda n: np.array(n),
        lambda n: np.array(n, np.int32),
        lambda n: np.array([[x, -99] for x in n])[:, 0],
        lambda n: torch.tensor(n),
        lambda n: torch.tensor(n, dtype=torch.int32),
        lambda n: [np.int32(x) for x in n],
        lambda n: Lender(np.array(n), code=0),
    ):
        options = {
            "kv_lengths": made([3, 40]),
            "q_lengths": made([33, 7]),
            "q_offset": made([0, 2]),
        }
        assert bits(fanano.attention(*arrays, **options)) == expected
        assert bits(fanano.attention(*map(to_torch, arrays), **options)) == expected


def test_one_offset_for_all():
    arrays = problem()
    expected = bits(fanano.attention(*arrays, is_causal=True, q_offset=[5, 5]))
    for offset in (5, np.int64(5), np.array(5), torch.tensor(5)):
        assert bits(fanano.attention(*arrays, is_causal=True, q_offset=offset)) == expected
    far = fanano.attention(*arrays, is_causal=True, q_offset=2**63 - 1)
    assert bits(far) == bits(fanano.attention(*arrays))


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_dtype(dtype):
    arrays = problem(dtype)
    wide = "float64" if dtype == "float64" else "float32"
    out = fanano.attention(*arrays, out_dtype=wide)
    assert out.dtype == wide
    for spelled in (np.dtype(wide), getattr(np, wide)):
        assert bits(fanano.attention(*arrays, out_dtype=spelled)) == bits(out)
    tensors = [to_torch(x) for x in arrays]
    out_ = fanano.attention(*tensors, out_dtype=getattr(torch, wide))
    assert out_.dtype is getattr(torch, wide)
    assert bits(out_) == bits(fanano.attention(*tensors, out_dtype=wide)) == bits(out)
    target = np.zeros_like(out)  # its dtype says what is wanted
    assert bits(fanano.attention(*arrays, out=target)) == bits(out)


# ---- NumPy's subclasses --------------------------------------------------------------------------


class WithUnit(np.ndarray):
    """Its numbers do not say all there is to say."""


def test_memory_maps_are_read_as_arrays(tmp_path):
    query, key, value = problem()
    np.save(tmp_path / "q.npy", query)
    mapped = np.load(tmp_path / "q.npy", mmap_mode="r")
    assert type(mapped) is np.memmap
    out = fanano.attention(mapped, key, value)
    assert type(out) is np.ndarray
    assert bits(out) == bits(fanano.attention(query, key, value))
    np.save(tmp_path / "out.npy", np.zeros_like(out))
    target = np.load(tmp_path / "out.npy", mmap_mode="r+")
    assert fanano.attention(query, key, value, out=target) is target
    assert bits(np.load(tmp_path / "out.npy")) == bits(out)
    with pytest.raises(ValueError, match="out is read-only"):
        fanano.attention(query, key, value, out=np.load(tmp_path / "out.npy", mmap_mode="r"))


SUBCLASSES = {
    r"matrix": lambda x: np.asmatrix(x),
    r"recarray": lambda x: x.view(np.recarray),
    r"test_adapters.WithUnit": lambda x: x.view(WithUnit),
    r"numpy.ma.MaskedArray, whose mask would be lost": np.ma.asarray,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("said", SUBCLASSES)
def test_subclasses_of_numpy_are_refused(said):
    x = np.ones((4, 8), np.float32)
    special = SUBCLASSES[said](x)
    for call, argument in (
        (lambda: fanano.attention(x, special, x), "key"),
        (lambda: fanano.attention(x, x, x, out=special), "out"),
        (lambda: fanano.attention(x, x, x, kv_lengths=SUBCLASSES[said](np.ones(1, int))),
         "kv_lengths"),
        (lambda: fanano.attention(x, x, x, attn_mask=special), "attn_mask"),
        (lambda: fanano.attention(x, x, x, sinks=special), "sinks"),
        (lambda: fanano.explain(special, x, x), "query"),
        (lambda: fanano.softmax(special), "x"),
        (lambda: fanano.SoftmaxState().absorb(special), "scores"),
        (lambda: fanano.merge_states(x, special, x, x), "lse_a"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"{argument} is a .*{said}.*(asarray|getdata)"):
            call()


# ---- any other library, through the standard's protocols -----------------------------------------


@pytest.mark.parametrize("versioned", [True, False], ids=["DLPack 1", "DLPack 0"])
def test_any_library(versioned):
    arrays = problem()
    out, lse = fanano.attention(*arrays, return_lse=True)
    shared = [Shared(x, versioned=versioned) for x in arrays]
    out_, lse_ = fanano.attention(*shared, return_lse=True)
    assert type(out_) is type(lse_) is Shared
    assert bits(out_) == bits(out)
    assert bits(lse_) == bits(lse)
    assert [x.returned for x in shared] == [1, 1, 1]

    target = Shared(np.zeros_like(out))
    assert fanano.attention(*shared, out=target) is target
    assert bits(target) == bits(out)
    both = fanano.attention(*shared, out=target, return_lse=True)
    assert both[0] is target
    assert bits(both[1]) == bits(lse)

    assert bits(fanano.softmax(shared[0])) == bits(fanano.softmax(arrays[0]))
    merged = fanano.merge_states(out_, lse_, out_, lse_)
    assert [type(x) for x in merged] == [Shared, Shared]
    assert fanano.explain(*shared).algorithm == "flash"


def test_results_outlive_everything():
    x = Shared(np.ones((4, 8), np.float32))
    out = fanano.attention(x, x, x).array
    del x
    assert (out == 1).all()
    assert out.flags.aligned


def test_out_that_may_be_a_constant():
    """DLPack 0 cannot say whether memory may be written, and some of its libraries' never may."""
    x = Shared(np.ones((4, 8), np.float32))
    out = Shared(np.full((4, 8), 7, np.float32), versioned=False)
    message = r"out is of type \S*Shared, .* without saying whether"
    refuses(lambda: fanano.attention(x, x, x, out=out), "unflagged", message)
    assert (out.array == 7).all()


class Older(Shared):
    """From before max_version."""

    def __dlpack__(self):
        return super().__dlpack__()


def test_a_library_from_before_dlpack_1():
    x = Older(np.ones((4, 8), np.float32), versioned=False)
    assert (fanano.attention(x, x, x).array == 1).all()
    message = r"out is of type \S*Older, .* without saying whether"
    refuses(lambda: fanano.attention(x, x, x, out=x), "unflagged", message)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_array_api_strict(dtype):
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    arrays = problem(dtype)
    out, lse = fanano.attention(*arrays, return_lse=True, is_causal=True)
    strict = [xp.asarray(x) for x in arrays]
    out_, lse_ = fanano.attention(*strict, return_lse=True, is_causal=True)
    assert type(out_) is type(lse_) is type(strict[0])
    assert out_.dtype == getattr(xp, dtype)
    assert [bits(np.from_dlpack(x)) for x in (out_, lse_)] == [bits(out), bits(lse)]
    assert bits(np.from_dlpack(fanano.softmax(strict[0]))) == bits(fanano.softmax(arrays[0]))

    target = xp.zeros(out.shape, dtype=getattr(xp, dtype))
    assert fanano.attention(*strict, out=target, is_causal=True) is target
    assert bits(np.from_dlpack(target)) == bits(out)
    fixed = np.zeros_like(out)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        fanano.attention(*strict, out=xp.asarray(fixed, copy=False))
    for name in ("complex64", "int8", "bool"):
        with pytest.raises(TypeError, match=f"x must be float64.*{name}"):
            fanano.softmax(xp.zeros((2, 3), dtype=getattr(xp, name)))


def test_memory_that_nobody_takes():
    def address_space():
        return int(Path("/proc/self/statm").read_text().split()[0])  # pages

    before = address_space()
    for options in ({}, {"max_version": (1, 0)}) * 50:
        _core.Buffer((2**24,), "float32").__dlpack__(**options)  # 64 MiB
    assert address_space() - before < 2**30 // 4096


@pytest.mark.parametrize("made", [lambda x: x, to_torch, Shared], ids=["numpy", "torch", "any"])
def test_nothing_is_kept(made):
    arrays = [made(x) for x in problem()]
    before = [sys.getrefcount(x) for x in arrays]
    for _ in range(3):
        out = fanano.attention(*arrays, return_lse=True, kv_lengths=[1, 2])[0]
        with pytest.raises(ValueError, match="layout"):
            fanano.attention(*arrays, layout="?")
        fanano.attention(*arrays, out=out)
    fresh = made(np.ones(2))
    assert sys.getrefcount(out) == sys.getrefcount(fresh)
    assert [sys.getrefcount(x) for x in arrays] == before
