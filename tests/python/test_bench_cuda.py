"""`fanano bench --device cuda` as it is on a GPU, but for the GPU: torch's tensors lie on the CPU,
and its events are of the wall clock. Kernels on a device: test_emulated_bench.py."""

from __future__ import annotations

import ctypes
import json
import time
from types import SimpleNamespace

import pytest

np = pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")
torch = pytest.importorskip("torch", reason="a GPU is measured by torch")
for package in ("rich", "ml_dtypes"):
    pytest.importorskip(package, reason=f"the benchmark needs {package} (extra: bench)")

from fanano.cli import main  # noqa: E402
from fanano.cli.bench import arrays, cases, devices, exact, gradients, peers, timing  # noqa: E402
from fanano.cli.bench.devices import cuda, nvml  # noqa: E402
from fanano.cli.bench.peers import torch as torch_peers  # noqa: E402

SQUARES = cases.square(1, 2, 33, 16), cases.Case(2, 4, 2, 17, 17, 8, causal=True)
TINY = {"prefill": SQUARES, "decode": (cases.Case(1, 4, 2, 1, 64, 16),), "backward": SQUARES}
TWO = [
    ("float32", cases.Case(2, 4, 2, 7, 19, 8, causal=True)),
    ("bfloat16", cases.square(1, 2, 33, 16)),
]


class Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, end):
        return 1e3 * (end.at - self.at)


PROPERTIES = SimpleNamespace(
    name="a GPU", uuid="1-2", major=9, minor=0, multi_processor_count=132, total_memory=2**37,
    L2_cache_size=2**26,
)  # fmt: skip


@pytest.fixture
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(cases, "CUDA_QUICK", TINY)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0005)
    monkeypatch.setattr(cuda, "EVICT_BYTES", 2**12)
    monkeypatch.setattr(cuda, "SIDE", 16)
    monkeypatch.setattr(cuda.Cuda, "place", "cpu")
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_properties": lambda device: PROPERTIES,
        "Event": Event,
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)


def bench(*arguments, tmp_path):
    file = tmp_path / "result.json"
    common = "--device", "cuda", "--quick", "--rounds", "2", "--json", str(file)
    return main(["bench", *common, *arguments]), json.loads(file.read_text())


def test_bench(on_the_cpu, tmp_path, capsys, recwarn):
    code, result = bench("--dtype", "float32", tmp_path=tmp_path)
    out, err = capsys.readouterr()
    assert (code, err, len(result["rows"])) == (0, "", 5)
    assert (result["gpu"], result["capability"], result["multiprocessors"]) == ("a GPU", "9.0", 132)
    contenders = ["fanano", "torch flash", "torch cuDNN", "torch efficient", "torch math"]
    of_backward = ["fanano", "fanano on torch", "torch flash", "torch flash, repeats"]
    for row in result["rows"]:
        found = row["contenders"]
        expected = of_backward + contenders[2:] if row["group"] == "backward" else contenders
        assert list(found) == expected
        assert row["cache_bytes"] == 2**26
        for name in ("fanano", "torch flash"):
            assert found[name]["seconds"] > 0
            assert found[name]["best"] > 0
            assert found[name]["of_allowed"] <= 1
        assert "refused" in found["torch cuDNN"]  # there is none on a CPU
        assert set(found["torch math"]) == {"error", "of_allowed"}
    assert "clocks not known (" in out or "before the run: " in out
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []


def test_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--device", "cuda", "--quick"]) == 1
    assert "torch finds no CUDA device that it can use" in capsys.readouterr().err


def test_groups_that_a_gpu_has_not(capsys):
    assert main(["bench", "--device", "cuda", "--group", "memory"]) == 2
    assert "--group memory: expected prefill, decode, backward" in capsys.readouterr().err


def test_the_papers_grid():
    chosen = cases.chosen(cases.CUDA_GROUPS, ["bfloat16"], quick=False, device="cuda")
    assert len(chosen) == 36 + 6 + 24
    for group, case in chosen:
        if group != "decode":
            assert case.heads * case.dim == 2048
            assert case.batch * case.rows == 16384
    assert max(case.dim for group, case in chosen if group == "backward") == 128


def test_a_run_that_ends_early_has_something_of_each_group():
    for quick in False, True:
        chosen = cases.chosen(cases.CUDA_GROUPS, ["bfloat16", "float16"], quick, device="cuda")
        assert [group for group, _ in chosen[:3]] == ["prefill", "decode", "backward"]
        dtypes = [case.dtype for group, case in chosen if group == "backward"]
        assert dtypes == sorted(dtypes)  # bfloat16 first
        assert len(set(chosen)) == len(chosen)


# ---- what is compared, and how it is timed -------------------------------------------------------


@pytest.mark.parametrize(("dtype", "case"), TWO)
def test_the_judge_is_the_same_on_tensors(dtype, case):
    case = cases.replace(case, dtype=dtype)
    (one,), dout = arrays.inputs(case), arrays.upstream(case)
    tensors = arrays.Inputs(*torch_peers.tensors(case, one))
    (there,) = torch_peers.tensors(case, [dout])
    library = cuda.torch_on("cpu")
    expected = exact.exact(one, is_causal=case.causal)
    found = exact.exact(tensors, library, is_causal=case.causal)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-14)
    off = torch_peers.tensors(case, [(1.1 * expected).astype(one.query.dtype)])[0]
    verdicts = [
        exact.judge(off, found, tensors, dtype, library),
        exact.judge((1.1 * expected).astype(one.query.dtype), expected, one, dtype),
    ]
    assert verdicts[0] == pytest.approx(verdicts[1], rel=1e-6)
    assert verdicts[0]["of_allowed"] > 1
    mine = gradients.exact_gradients(one, dout, is_causal=case.causal)
    theirs = gradients.exact_gradients(tensors, there, library, is_causal=case.causal)
    for a, b in zip(
        (*mine.gradients, *mine.sizes), (*theirs.gradients, *theirs.sizes), strict=True
    ):
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-12, atol=1e-13)
    verdict = gradients.judge_gradients([x * 1.5 for x in theirs.gradients], theirs, dtype, library)
    assert verdict["of_allowed"] > 1
    nan = [x * np.nan for x in theirs.gradients]
    assert not gradients.judge_gradients(nan, theirs, dtype, library)["of_allowed"] <= 1


def test_the_caches_are_overwritten_before_each_call_and_outside_of_its_time(on_the_cpu):
    device = cuda.Cuda()
    device.start()
    order = []

    class Room:
        def zero_(self):
            order.append("evict")
            time.sleep(0.01)

    def call():
        order.append("call")
        time.sleep(0.001)

    device.room = Room()
    sample = device.sample([call] * 3)
    assert order == ["evict", "call"] * 3
    assert 0.001 <= sample.seconds < 0.01


def test_inputs_repeat():
    library = cuda.torch_on("cpu")
    case = cases.replace(TINY["decode"][0], dtype="float16")
    one, again = (arrays.inputs(case, 2, library) for _ in range(2))
    assert one[0].key.dtype == torch.float16
    for a, b in zip((*one[0], *one[1]), (*again[0], *again[0]), strict=True):
        assert torch.equal(a, b)
    assert one[0].key.data_ptr() != one[1].key.data_ptr()


def test_deterministic_is_set_for_its_turn_alone():
    peer = torch_peers.Deterministic()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    with peer.around():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == fills
    assert peer.name in {one.name for one in peers.ALL}
    assert set(devices.BY_NAME) == {"cpu", "cuda"}


# ---- clocks --------------------------------------------------------------------------------------


class Driver:
    """Answers as libnvidia-ml does, by writing where it is told to."""

    def __init__(self, wrong=""):
        self.wrong, self.asked = wrong, []

    def __getattr__(self, name):
        def function(*arguments):
            self.asked.append(name)
            if name == self.wrong:
                return 3
            if name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.1"
            elif name == "nvmlDeviceGetHandleByUUID":
                assert arguments[0] == b"GPU-1-2"
                arguments[1]._obj.value = 77
            elif name != "nvmlInit_v2":
                assert arguments[0].value == 77
                assert isinstance(arguments[-1]._obj, ctypes.c_uint)
                arguments[-1]._obj.value = 1980 + sum(arguments[1:-1])
            return 0

        return function


def test_clocks():
    clocks = nvml.Clocks("GPU-1-2", Driver)
    assert (clocks.driver, clocks.mhz()) == ("580.1", 1981)
    assert clocks.now() == {
        "sm_mhz": 1981, "most_sm_mhz": 1981, "memory_mhz": 1982, "milliwatts": 1980,
        "celsius": 1980,
    }  # fmt: skip
    assert str(clocks).startswith("before the run: sm_mhz 1981, ")


def test_clocks_that_cannot_be_asked():
    def none():
        raise OSError("no such library")

    for load, words in (
        (none, "clocks not known (no such library)"),
        (lambda: Driver("nvmlInit_v2"), "clocks not known (nvmlInit_v2 answers 3)"),
        (
            lambda: Driver("nvmlDeviceGetHandleByUUID"),
            "clocks not known (nvmlDeviceGetHandleByUUID answers 3)",
        ),
    ):
        clocks = nvml.Clocks("GPU-1-2", load)
        assert str(clocks) == words
        assert clocks.mhz() is None
    partly = nvml.Clocks("GPU-1-2", lambda: Driver("nvmlDeviceGetPowerUsage"))
    assert partly.now()["milliwatts"] is None
    assert partly.now()["sm_mhz"] == 1981
