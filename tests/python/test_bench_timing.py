"""`fanano bench`: turns, sets of keys that take turns, and what it knows of the machine."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")

from fanano.cli.bench import arrays, cases, machine, timing  # noqa: E402


def test_turns_and_sets_rotate():
    calls = []

    def contender(name, sets):
        return timing.Contender(
            [lambda number=n: calls.append((name, number)) for n in range(sets)]
        )

    contenders = {"a": contender("a", 3), "b": contender("b", 1)}
    for one in contenders.values():
        one.repeats = 2
    for one in contenders.values():
        one.sample()
        one.sample()
    assert calls == [("a", 0), ("a", 1), ("a", 2), ("a", 0), *[("b", 0)] * 4]


def test_every_round_begins_with_another(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0)
    calls, ticks = [], []
    contenders = {x: timing.Contender([lambda x=x: calls.append(x)]) for x in "abc"}
    times = timing.timed(contenders, 4, lambda: ticks.append(1))
    assert "".join(calls[9:]) == "abcbcacababc"  # after three calls each that do not count
    assert len(ticks) == 12
    for summary in times.values():
        assert 0 < summary["fastest"] <= summary["seconds"] <= summary["slowest"]
        assert summary["best"] > 0


def test_more_sets_than_the_cache_holds(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 2**40)
    assert machine.kv_sets(kv_bytes=100, cache=250, holders=7) == 11  # 1100 > 4 * 250
    assert machine.kv_sets(kv_bytes=2000, cache=250, holders=7) == 1
    monkeypatch.setattr(machine, "available_memory", lambda: 2 * 7 * 300)
    assert machine.kv_sets(kv_bytes=100, cache=250, holders=7) == 3  # half of the memory, by 7
    monkeypatch.setattr(machine, "available_memory", lambda: 1)
    assert machine.kv_sets(kv_bytes=100, cache=250, holders=7) == 1


def test_sets_are_copies_of_their_own():
    one, other = arrays.inputs(cases.Case(1, 4, 2, 1, 64, 16), sets=2)
    for name in ("key", "value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert not np.shares_memory(getattr(one, name), getattr(other, name))


def test_the_last_level_caches_of_a_machine_count_once(tmp_path):
    for number, (level, size, shared) in enumerate(
        [(3, "8M", "0"), (3, "512K", "1-2"), (2, "4K", "1")]
    ):
        index = tmp_path / f"cpu{number}" / "cache" / "index2"
        index.mkdir(parents=True)
        for name, text in (("level", level), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(f"{text}\n")
    index = tmp_path / "cpu9" / "cache" / "index2"
    index.mkdir(parents=True)
    for name, text in (("level", 3), ("size", "512K"), ("shared_cpu_list", "1-2")):
        (index / name).write_text(f"{text}\n")
    # The size in other words than the kernel's is left out.
    assert machine.last_level_cache(tmp_path) == 512 * 1024


def test_reading_takes_two_more_arrays_each_time(monkeypatch):
    arrays, read = [np.full(n, n, np.float32) for n in (1, 2, 3, 4, 5, 6)], []
    monkeypatch.setattr(machine._core, "read", read.append)
    rate = machine.reading(arrays)
    for _ in range(4):
        assert rate() > 0
    assert [len(x) for x in read] == [1, 2, 3, 4, 5, 6, 1, 2]
    monkeypatch.undo()
    assert 1e8 < machine.reading([np.ones(2**20, np.float32)])() < 1e13
