"""How `fanano bench` measures memory: each contender in a process of its own."""

import pytest

pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")
for package in ("rich", "ml_dtypes"):
    pytest.importorskip(package, reason=f"the benchmark needs {package} (extra: bench)")

from fanano.cli.bench import cases, memory  # noqa: E402


@pytest.mark.skipif(not memory.measurable(), reason="peak memory is measured on Linux only")
def test_memory_is_measured_in_a_process_of_its_own():
    case = cases.square(1, 1, 2048, 16)
    safe, flash = (memory.in_own_process(case, name, 1) for name in ("fanano safe", "fanano"))
    scores = 4 * 2048 * 2048
    assert safe["bytes"] > scores - 2**20  # as exact as memory.py says
    assert 0 <= flash["bytes"] < scores / 4


def test_memory_says_why_it_is_not_measured(monkeypatch):
    case = cases.square(1, 1, 8, 8)
    monkeypatch.setattr(memory, "measurable", lambda: False)
    assert "on Linux only" in memory.in_own_process(case, "fanano", 1)["refused"]


def test_memory_takes_shapes_that_fit(monkeypatch):
    case = cases.square(1, 8, 8192, 64)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert memory.fitting(case) == case
    monkeypatch.setattr(memory, "available_memory", lambda: 2**32)
    assert memory.fitting(case).rows == 4096


@pytest.mark.skipif(not memory.measurable(), reason="peak memory is measured on Linux only")
def test_memory_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(memory, "MOST_SECONDS", 0.05)
    outcome = memory.in_own_process(cases.square(1, 1, 8, 8), "fanano", 1)
    assert outcome == {"refused": "had not ended after 0.05 seconds"}
