"""The calibration table (benchmarks/calibrate.py), from figures that are known."""

import json
import runpy
import sys

import pytest
from gpu_day import REPORT, ROOT, row

CALIBRATE = str(ROOT / "benchmarks" / "calibrate.py")


def calibrated(tmp_path, rows, **machine):
    report, result = tmp_path / "report.json", tmp_path / "result.json"
    report.write_text(json.dumps(REPORT))
    facts = {"device": "cuda", "date": "today", "machine": "a GPU", "capability": "9.0"}
    facts |= {"multiprocessors": 100, "rows": rows} | machine
    result.write_text(json.dumps(facts))
    file = tmp_path / "table.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(report), str(result), "--json", str(file)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(CALIBRATE, run_name="__main__")
    return end.value.code, json.loads(file.read_text()) if file.exists() else None


def test_calibration(tmp_path, capsys):
    """2 x 1000 flops x 100 multiprocessors x 1 GHz are 200 TFLOP/s; 100 were measured."""
    rows = [row(), row(dim=80), row("backward"), row(dtype="float16", mhz=2000.0)]
    code, table = calibrated(tmp_path, rows)
    assert code == 0
    names = [found["kernel"] for found in table]
    assert names == [REPORT[i]["kernel"] for i in (0, 3, 5, 4)]
    assert [found["measured"] for found in table] == pytest.approx([50, 50, 50, 25])
    assert [found["reached"] for found in table] == pytest.approx([1, 50 / 60, 50 / 30, 25 / 55])
    out = capsys.readouterr().out
    assert "| flash_sm80_kernel<bfloat16, 64, false> | (1, 2) | 1000 | 100 | 50 | 50 |" in out
    assert "backward_sm80_kernel<bfloat16, 64, false> exceeds its bound" in out
    _, table = calibrated(tmp_path, [row()], capability="8.0")
    assert [found["bound"] for found in table] == [90.0]


@pytest.mark.parametrize(
    ("rows", "machine", "words"),
    [
        ([row(dtype="float32")], {}, "no row of the benchmark has a kernel of the report"),
        ([row(dim=256)], {}, "no row of the benchmark has a kernel of the report"),
        ([row("decode")], {}, "no row of the benchmark has a kernel of the report"),
        ([row(mhz=None)], {}, "no row of the benchmark has a kernel of the report and a clock"),
        ([row()], {"device": "cpu"}, "is not of `fanano bench --device cuda`"),
    ],
)
def test_what_cannot_be_calibrated(rows, machine, words, tmp_path):
    code, table = calibrated(tmp_path, rows, **machine)
    assert words in code
    assert table is None
