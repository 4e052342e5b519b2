"""What torch tensors on CUDA devices go through on the way to a kernel, without a device: tensors
of the CPU that say they are elsewhere, and fake ones. With a GPU: test_torch_cuda.py."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import fanano
import fanano.torch
from fanano import _core
from fanano.adapters import torch as adapter
from fanano.torch import calls, operators


class Pretends(torch.Tensor):
    """A tensor of the CPU that says it is elsewhere."""

    is_cuda = True


def pretending(x, **more):
    return torch.tensor(x, **more).as_subclass(Pretends)


QUERY = pretending([0.0]).expand(3, 2, 5, 8)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("argument", ["q_lengths", "kv_lengths", "q_offset"])
def test_integers_as_kernels_read_them(argument, dtype):
    steps = pretending([1, 9, 2, 9, 3], dtype=dtype)[::2]
    found = adapter.device_option(argument, steps, QUERY)
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    assert found.tolist() == [1, 2, 3]
    one = adapter.device_option(argument, pretending(7, dtype=dtype), QUERY)
    assert one.is_contiguous()
    assert one.tolist() == [7, 7, 7]
    assert adapter.device_option(argument, pretending(7), QUERY[0]).tolist() == [7]


def test_reals_as_kernels_read_them():
    slopes = adapter.device_option("alibi_slopes", pretending([[0.5, 2.0]] * 3).half(), QUERY)
    assert (slopes.dtype, slopes.shape) == (torch.float64, (3, 2))
    sinks = adapter.device_option("sinks", pretending([-np.inf, 1e300], dtype=torch.float64), QUERY)
    assert sinks.tolist() == [-np.inf, np.finfo(np.float32).max / 8]
    wide = pretending([1.0, 1e300], dtype=torch.float64)
    assert adapter.device_option("sinks", wide, QUERY.double()).tolist() == [1.0, 1e300]


def test_other_options_stay_as_they_are():
    for argument, x in {
        "attn_mask": pretending([True]),
        "kv_lengths": pretending([1.0]),
        "q_lengths": pretending([1], dtype=torch.uint8),
        "sinks": pretending([1]),
    }.items():
        assert adapter.device_option(argument, x, QUERY) is x
    x = torch.tensor([1])
    assert adapter.device_option("kv_lengths", x, QUERY) is x


def test_checks_copy_to_the_cpu(monkeypatch):
    copied = []
    monkeypatch.setattr(Pretends, "cpu", lambda x: copied.append(x) or "a copy", raising=False)
    monkeypatch.setenv("FANANO_CHECK", "1")
    lengths = pretending([1, 2, 3])
    assert adapter.device_option("kv_lengths", lengths, QUERY) == "a copy"
    assert len(copied) == 1
    assert copied[0] is lengths


def test_who_cannot_use_devices_says_so():
    words = "x is on device .* only attention and its gradients run there"
    with pytest.raises(NotImplementedError, match=words):
        adapter.diagnose(False, x=pretending([1.0]))
    adapter.diagnose(True, x=pretending([1.0]))
    with pytest.raises(ValueError, match="x must be in the CPU's memory, it is on device meta"):
        adapter.diagnose(True, x=torch.ones(1, device="meta"), y=torch.ones(1))


class Log(TorchDispatchMode):
    """What torch is asked to do, and the devices of the tensors that it is given."""

    def __init__(self):
        super().__init__()
        self.devices = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kinds = [x.device.type if isinstance(x, torch.Tensor) else None for x in args]
        self.devices[function.name().partition("::")[2]] = kinds
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
def test_fake_tensors(layout):
    """What a compiler sees: the device, shapes and dtypes, and that the host's numbers stay there,
    for torch would wait for their copy."""
    with FakeTensorMode(), torch.no_grad():
        shapes = ((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 6))
        if layout == "bshd":
            shapes = [(b, s, h, d) for b, h, s, d in shapes]
        arrays = [torch.empty(x, dtype=torch.bfloat16, device="cuda") for x in shapes]
        with Log() as log:
            out, lse = fanano.torch.attention(
                *arrays,
                attn_mask=[True] * 7,
                sinks=[0.0] * 4,
                kv_lengths=[7, 3],
                q_offset=torch.empty(2, dtype=torch.int32, device="cuda"),
                dropout_p=0.5,
                return_lse=True,
                layout=layout,
                out_dtype="float32",
            )
        with Log() as of_a_number:
            fanano.torch.attention(*arrays, dropout_p=0.5, seed=2**64 - 1, layout=layout)
        assert (out.device.type, out.dtype) == ("cuda", torch.float32)
        assert out.shape == (*shapes[0][:3], 6)
        assert (lse.device.type, lse.shape) == ("cuda", (2, 4, 5))
        options = log.devices["attention"][4:11]
        assert options == ["cuda", "cpu", None, None, "cpu", "cuda", "cuda"]  # the last: a seed
        assert of_a_number.devices["attention"][10] == "cuda"
        small = torch.empty(4, device="cuda")
        numbers = None, small, None, None, None, None, None, False, None, None, None, None, None
        more = (0.0, 0, 0, 0, 0, layout)
        found = operators.attention_backward(
            *(out, *arrays, out, lse, None, False, *numbers, *more)
        )
        assert [x.device.type for x in found] == ["cuda"] * 5
        assert [x.shape for x in found] == [*shapes, (0,), (4,)]


def test_what_the_operators_give_to_the_core(monkeypatch):
    """Numbers as kernels read them, those of the device unseen."""
    given = []
    monkeypatch.setattr(_core, "attention", lambda *args: given.extend(args) or (None, None))
    lengths, seed = pretending([1, 2, 3], dtype=torch.int32), pretending(7, dtype=torch.int32)
    slopes, on_host = pretending([0.5, 0.25]), torch.tensor([3], dtype=torch.int32)
    numbers = None, None, slopes, lengths, on_host, pretending(2), seed, False, None, None, None
    operators.attention_kernel(
        QUERY, QUERY, QUERY, None, *numbers, None, None, 0.5, 0, 0, 0, 0, "bhsd"
    )
    assert given[9].tolist() == [2, 2, 2]
    assert given[12].dtype == torch.float64
    assert (given[15].dtype, given[15].shape) == (torch.int64, ())
    assert given[17].dtype == torch.int64
    assert given[18] is on_host


def test_seeds():
    for dtype in torch.int32, torch.uint8, torch.int64:
        seed = adapter.device_option("seed", pretending(7, dtype=dtype), QUERY)
        assert (seed.dtype, seed.shape) == (torch.int64, ())
    torch.manual_seed(3)
    drawn = adapter.fresh_seed(torch.ones(1))
    torch.manual_seed(3)
    assert drawn == int(adapter.seed_tensor(torch.ones(1)))
    with FakeTensorMode():
        seed = adapter.fresh_seed(torch.empty(1, device="cuda"))
        assert (seed.device.type, seed.dtype, seed.shape) == ("cuda", torch.int64, ())


def test_torch_without_the_exchange(monkeypatch):
    """It would not say on which stream it works."""
    monkeypatch.setattr(adapter, "_exchange", False)
    x = pretending([1.0])
    with pytest.raises(NotImplementedError, match=r"x is on device .* cannot say on which stream"):
        adapter.prepare(("x",), (x,))
    with pytest.raises(NotImplementedError, match=r"query is on device .* cannot say on which"):
        calls.attention(QUERY, QUERY, QUERY)
