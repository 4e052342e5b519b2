"""`fanano profile`: what two profilers say of calls whose time is known, and the trace."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="profiles by torch's profilers")
pytest.importorskip("rich", reason="fanano profile prints by rich")

from torch.autograd import DeviceType  # noqa: E402

from fanano.cli import errors, main  # noqa: E402
from fanano.cli.profile import devices, measuring, table, workloads  # noqa: E402

SHAPE = (1, 2, 40, 16)
RANGES = [
    *("torch math forward", "fanano safe forward", "fanano flash forward"),
    *("torch math backward", "fanano flash backward"),
]
OPERATORS = {
    "fanano flash forward": "fanano::attention",
    "fanano flash backward": "fanano::attention_backward",
    "torch math forward": "aten::_softmax",
    "torch math backward": "aten::_softmax_backward_data",
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(measuring, "SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(measuring, "SMALL", 0)  # of calls that tiny every operator is


def profile(*arguments, tmp_path):
    """What --json and --trace wrote."""
    files = [tmp_path / name for name in ("result.json", "trace.json")]
    sizes = ("--heads", "2", "--tokens", "40", "--dim", "16", "--rounds", "2")
    written = ("--json", str(files[0]), "--trace", str(files[1]))
    assert main(["profile", *sizes, *written, *arguments]) == 0
    return [json.loads(file.read_text()) for file in files]


# ---- workloads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_causal", [False, True])
def test_all_compute_the_same(is_causal):
    calls = workloads.calls(SHAPE, "float64", is_causal)
    assert list(calls) == RANGES
    outs = [calls[f"{name} forward"]() for name in ("torch math", "fanano safe", "fanano flash")]
    for out in outs[1:]:
        torch.testing.assert_close(out.detach(), outs[0].detach(), rtol=0, atol=1e-14)
    expected, found = (calls[f"{name} backward"]() for name in ("torch math", "fanano flash"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


# ---- measuring -----------------------------------------------------------------------------------


def test_times_that_are_known():
    """Asleep for 20 ms, of which 5 in an operator's range: both say so, of wall time and not of
    the CPU's."""

    def call():
        time.sleep(0.015)
        with torch.profiler.record_function("inner"):
            time.sleep(0.005)

    rows, _ = measuring.measure({"asleep": call, "awake": lambda: torch.ones(200).sum()}, rounds=3)
    asleep, inner, awake, *_ = rows
    assert (asleep["range"], asleep["calls"], inner["operator"]) == ("asleep", 1, "inner")
    assert 0.02 <= asleep["clock"] < 2
    assert asleep["cpu"] < 0.01
    for way in measuring.PROFILERS:
        assert 0.02 <= asleep[way]["says"] < 2
        assert asleep[way]["says"] <= asleep[way]["clock"] * 1.001
        assert -0.5 < asleep[way]["off"] < 0.001
        assert 0.005 <= inner[way]["says"] < 1
    assert awake["range"] == "awake"
    assert 0 < awake["torch"]["says"] < 0.01


def test_operators_are_of_the_range_they_ran_in():
    calls = workloads.calls(SHAPE, "float32", False)
    rows, _ = measuring.measure(calls, rounds=1)
    assert [row["range"] for row in rows if "operator" not in row] == RANGES
    for name, operator in OPERATORS.items():
        assert operator in {row.get("operator") for row in rows if row["range"] == name}
        (whole,) = (row for row in rows if row["range"] == name and "operator" not in row)
        parts = [row for row in rows if row["range"] == name and "operator" in row]
        for way in measuring.PROFILERS:
            assert 0 < sum(row[way]["says"] for row in parts) <= whole[way]["says"] * 1.001


def test_apart_is_legacy_against_the_other():
    row = {"legacy": {"off": 0.5}, "torch": {"off": -0.25}}
    assert table.apart(row) == pytest.approx(1.0)
    assert table.percent(table.apart({"legacy": {"off": 0}, "torch": {"off": -1.0}})) == "+nan%"


def test_numbers_are_short():
    shown = [table.ms(x) for x in (0, 1e-6, 6.59e-5, 1.234e-4, 0.0123, 0.0999, 0.1004, 2.5)]
    assert shown == ["0.000", "0.001", "0.066", "0.123", "12.3", "99.9", "100", "2500"]


# ---- on a device ---------------------------------------------------------------------------------


def event(name, start, end, *, device=DeviceType.CPU, parent=None, total=0.0, itself=0.0):
    """In microseconds, as the profilers have it."""
    return SimpleNamespace(
        name=name,
        device_type=device,
        cpu_parent=parent,
        time_range=SimpleNamespace(start=start, elapsed_us=lambda: end - start),
        device_time_total=total,
        self_device_time_total=itself,
        cpu_time_total=1e9,
        self_cpu_time_total=1e9,
    )


def test_kernels_are_of_the_range_that_began_last():
    """Whoever launched them, in whatever order the profiler has them; what ran before any range,
    and a range's own shadow on the device, count nowhere."""
    gpu = DeviceType.CUDA
    events = [
        event("early", 1, 2, device=gpu),
        event("a", 10, 12),
        event("aten::bmm", 11, 12),
        event("a", 20, 22),
        event("a", 14, 40, device=gpu),
        event("k", 25, 31, device=gpu),
        event("k", 14, 18, device=gpu),
        event("b", 60, 61),
        event("other", 62, 65, device=gpu),
        event("k", 66, 67, device=gpu),
    ]
    found = devices.Cuda().by_range("torch", events, ["a", "b"])
    assert found["a"] == {"a": pytest.approx(10e-6), "k": pytest.approx(10e-6)}
    assert found["b"] == {
        "b": pytest.approx(4e-6),
        "other": pytest.approx(3e-6),
        "k": pytest.approx(1e-6),
    }
    assert devices.Cuda().by_range("torch", [event("a", 1, 2)], ["a"]) == {"a": {"a": 0.0}}


def test_the_legacy_profiler_says_device_times_of_operators():
    whole = event("a", 0, 9, total=50.0, itself=5.0)
    inner = event("aten::bmm", 1, 8, parent=whole, total=45.0, itself=40.0)
    leaf = event("aten::empty", 2, 3, parent=inner, total=5.0, itself=5.0)
    found = devices.Cuda().by_range("legacy", [whole, inner, leaf], ["a"])
    seconds = {"a": 50e-6, "aten::bmm": 40e-6, "aten::empty": 5e-6}
    assert found["a"] == pytest.approx(seconds)


def test_calls_are_timed_between_events(monkeypatch):
    """Of the device, each call alone: here 20 ms of it, and the pauses between are not in that."""
    clock, order = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock[0]
            clock[0] += 1.0  # until the next thing is enqueued

        def elapsed_time(self, end):
            return 1e3 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))

    def call():
        order.append("call")
        clock[0] += 0.02

    seconds, _ = devices.Cuda().timed("a", call, 3)
    assert seconds == pytest.approx(3 * 1.02)
    assert order == ["wait", "call", "call", "call", "wait"]


def test_what_is_not_there_is_said_and_left_out(tmp_path, monkeypatch, capsys):
    true = workloads.calls

    def calls(*arguments):
        def missing():
            raise NotImplementedError("no such kernel")

        return true(*arguments) | {"fanano flash backward": missing}

    monkeypatch.setattr(workloads, "calls", calls)
    result, _ = profile(tmp_path=tmp_path)
    assert result["missing"] == {"fanano flash backward": "no such kernel"}
    assert {row["range"] for row in result["rows"]} == set(RANGES[:-1])
    assert "fanano flash backward: not there, no such kernel" in capsys.readouterr().out


def test_flash_without_gradients_is_profiled_forward_alone(monkeypatch):
    def attention(query, *others, **options):
        if query.requires_grad:
            raise NotImplementedError("no gradients here")
        return "forward"

    monkeypatch.setattr(workloads.fanano.torch, "attention", attention)
    calls, missing = measuring.runnable(workloads.calls(SHAPE, "float32", False))
    assert calls["fanano flash forward"]() == "forward"
    assert missing == {"fanano flash backward": "no gradients here"}


# ---- the command ---------------------------------------------------------------------------------


def test_profile(tmp_path, capsys):
    before = torch.get_num_threads()
    arguments = "--dtype", "bfloat16", "--causal", "--threads", "1"
    result, _ = profile(*arguments, tmp_path=tmp_path)
    out = capsys.readouterr().out
    assert torch.get_num_threads() == before
    assert (result["shape"], result["dtype"], result["threads"]) == (list(SHAPE), "bfloat16", 1)
    assert [row["range"] for row in result["rows"] if "operator" not in row] == RANGES
    for words in (*RANGES, "(1, 2, 40, 16) bfloat16, causal", "legacy", "apart", "trace.json"):
        assert words in out
    assert "fanano::attention_backward" in out
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []


def test_the_trace_has_our_kernels_as_named_ranges(tmp_path):
    """In the format that Perfetto reads: complete events, each within the one it was called in."""
    result, trace = profile(tmp_path=tmp_path)
    events = trace["traceEvents"]
    assert all(isinstance(event["ph"], str) for event in events)
    complete = [event for event in events if event["ph"] == "X"]
    for event in complete:
        assert isinstance(event["name"], str)
        assert event["dur"] >= 0
        assert all(isinstance(event[field], int | float) for field in ("ts", "dur"))
        assert {"pid", "tid"} <= set(event)
    calls = {row["range"]: row["calls"] for row in result["rows"] if "operator" not in row}
    for name in RANGES:
        ranges = [e for e in complete if e["name"] == name and e["cat"] == "user_annotation"]
        assert len(ranges) == calls[name]
        if name in OPERATORS:
            inside = [e for e in complete if e["name"] == OPERATORS[name]]
            assert len(inside) == calls[name]
            for event in inside:
                assert any(
                    outer["ts"] <= event["ts"]
                    and event["ts"] + event["dur"] <= outer["ts"] + outer["dur"]
                    and outer["tid"] == event["tid"]
                    for outer in ranges
                )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tokens", "0"], "--tokens is 0; expected 1 or more"),
        (["--rounds", "-1"], "--rounds is -1; expected 1 or more"),
        (["--dim", "577"], "--dim is 577; expected at most 576"),
        (["--trace", "trace.txt"], "--trace trace.txt: expected a name in .json"),
    ],
)
def test_mistakes(arguments, words, capsys):
    assert main(["profile", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["profile", "--device", "cuda"]) == 1
    assert "torch finds no CUDA device that it can use" in capsys.readouterr().err


def test_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert main(["profile"]) == 1
    assert "fanano profile needs torch, rich; install with:" in capsys.readouterr().err
