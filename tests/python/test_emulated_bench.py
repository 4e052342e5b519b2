"""`fanano bench --device cuda` to its end, the emulator of tests/cuda standing in for a GPU."""

import json

import emulated
import emulated_bench
import pytest

from fanano.cli import main
from fanano.cli.bench import cases, cells, devices, peers, timing

pytestmark = emulated.needs_emulator


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0)
    tiny = emulated_bench.TINY
    monkeypatch.setattr(cases, "CUDA_QUICK", tiny)
    monkeypatch.setattr(cases, "CUDA_FULL", tiny)
    monkeypatch.setitem(devices.BY_NAME, "cuda", emulated_bench.Emulated)
    contenders = emulated_bench.OnEmulator, emulated_bench.Safe, emulated_bench.Host
    monkeypatch.setattr(peers, "ALL", contenders)


def bench(*arguments, tmp_path):
    file = tmp_path / "result.json"
    common = "--device", "cuda", "--rounds", "1", "--json", str(file)
    return main(["bench", *common, *arguments]), json.loads(file.read_text())


def test_bench(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: bench)")
    plot = tmp_path / "plot.png"
    code, result = bench("--quick", "--plot", str(plot), tmp_path=tmp_path)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert (result["device"], result["gpu"], result["left_out"]) == ("cuda", "none, emulated", 0)
    groups = [(row["group"], row["dtype"], row["device"]) for row in result["rows"]]
    assert groups == [
        (group, "bfloat16", "cuda") for group in ("prefill", "decode", "backward", "prefill")
    ]
    backward = result["rows"].pop(2)["contenders"]
    for row in result["rows"]:
        found = row["contenders"]
        assert list(found) == ["fanano", "stand-in of a peer", "stand-in of math"]
        for name in ("fanano", "stand-in of a peer"):
            assert found[name]["seconds"] > 0
            assert found[name]["mhz"] == 1000
        assert set(found["stand-in of math"]) == {"error", "of_allowed"}
        assert all(0 < outcome["of_allowed"] <= 1 for outcome in found.values())
    assert backward["fanano"]["seconds"] > 0
    assert 0 < backward["fanano"]["of_allowed"] <= 1
    assert backward["stand-in of a peer"] == {"refused": "is a stand-in"}
    for words in (
        *("Prefill, bfloat16", "Decode, bfloat16", "Backward, bfloat16", "no GPU: the emulator"),
        *("TFLOP/s", "GB/s", "error", "clock: 1000 to 1000 MHz", "(1, 1, 20, 64) causal", "1.00x"),
    ):
        assert words in out
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []


def test_what_is_not_there_yet_is_no_failure(tmp_path, monkeypatch, capsys):
    def not_yet(self, case, one, dout):
        raise NotImplementedError("no gradients here")

    monkeypatch.setattr(emulated_bench.OnEmulator, "backward", not_yet)
    code, result = bench("--quick", "--group", "backward", tmp_path=tmp_path)
    (row,) = result["rows"]
    assert code == 0
    assert row["contenders"]["fanano"] == {"missing": "NotImplementedError: no gradients here"}
    assert cells.CELLS["cuda"]["backward"](row, row["contenders"]["fanano"]) == ["-"]
    assert "fanano, missing: NotImplementedError: no gradients here" in capsys.readouterr().out


def test_wrong_results_fail(tmp_path, monkeypatch):
    prepare = emulated_bench.OnEmulator.prepare

    def wrong(self, case, sets):
        prepared = prepare(self, case, sets)
        off = prepared.to_array
        prepared.to_array = lambda out: off(out) * 1.1
        return prepared

    monkeypatch.setattr(emulated_bench.OnEmulator, "prepare", wrong)
    code, result = bench("--quick", "--group", "decode", tmp_path=tmp_path)
    assert code == 1
    assert "differs from float64" in result["rows"][0]["contenders"]["fanano"]["wrong"]


def test_time_that_is_up(tmp_path, capsys):
    code, result = bench("--seconds", "0", tmp_path=tmp_path)
    assert (code, result["rows"], result["left_out"]) == (0, [], 8)
    assert "8 case(s) left out: the time was up" in capsys.readouterr().out


def test_each_row_is_kept_when_the_next_one_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(emulated_bench.Emulated, "rows", 0, raising=False)

    def sets(self, case, holders):
        emulated_bench.Emulated.rows += 1
        if emulated_bench.Emulated.rows == 3:
            raise RuntimeError("the device is gone")
        return 1, 0

    monkeypatch.setattr(emulated_bench.Emulated, "sets", sets)
    with pytest.raises(RuntimeError, match="the device is gone"):
        bench("--quick", tmp_path=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (len(result["rows"]), result["left_out"]) == (2, 2)
