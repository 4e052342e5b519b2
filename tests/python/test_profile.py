"""`fanano profile`: what two profilers say of calls whose time is known, and the trace."""

from __future__ import annotations

import json
import time

import pytest

torch = pytest.importorskip("torch", reason="profiles by torch's profilers")
pytest.importorskip("rich", reason="fanano profile prints by rich")

from fanano.cli import errors, main  # noqa: E402
from fanano.cli.profile import measuring, table, workloads  # noqa: E402

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


def test_numbers_are_short():
    shown = [table.ms(x) for x in (0, 1e-6, 6.59e-5, 1.234e-4, 0.0123, 0.0999, 0.1004, 2.5)]
    assert shown == ["0.000", "0.001", "0.066", "0.123", "12.3", "99.9", "100", "2500"]


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


def test_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert main(["profile"]) == 1
    assert "fanano profile needs torch, rich; install with:" in capsys.readouterr().err
