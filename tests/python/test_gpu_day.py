"""The day with a GPU, without one: its script to the end, the emulator standing in; the calibration
table from figures that are known."""

import base64
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fanano

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_day.sh"
CALIBRATE = str(ROOT / "benchmarks" / "calibrate.py")


# ---- the script ----------------------------------------------------------------------------------


def wheel_of_the_stage(folder):
    """The package under test as pip installs it."""
    package = Path(fanano.__file__).parent
    version = fanano.__version__
    files = {
        str(path.relative_to(package.parent)): path.read_bytes()
        for path in package.rglob("*")
        if path.suffix in (".py", ".so", ".typed") and "__pycache__" not in path.parts
    }
    info = f"fanano-{version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: fanano\nVersion: {version}\n".encode()
    )
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(x).digest()).decode().rstrip('=')}"
        f",{len(x)}\n"
        for name, x in files.items()
    )
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = folder / f"fanano-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def run(tmp_path, *, wheel=None, **environment):
    """The exit code, the summary, the log."""
    out = tmp_path / "out"
    environment = {"FANANO_GPU_DAY_PYTHON": sys.executable} | environment
    done = subprocess.run(
        ["bash", SCRIPT, wheel or wheel_of_the_stage(tmp_path), out],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | environment,
        timeout=600,
    )
    return done, (out / "summary.txt").read_text(), (out / "log.txt").read_text()


def results(summary):
    return {
        match[1]: match[2]
        for match in re.finditer(
            r"^(\S[^:\n]{20}\S|\S.*?) +(passed|failed|timed out|not run) +\d+ s",
            summary,
            re.MULTILINE,
        )
    }


@pytest.fixture
def needs_pip():
    pytest.importorskip("torch", reason="the day is for a Python that has torch")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip to install a wheel with")
    if shutil.which("bash") is None:
        pytest.skip("no bash runs the script")


def test_to_its_end_with_the_emulator(needs_pip, build_dir, tmp_path):
    if not (build_dir / "tests" / "stage_cuda").exists():
        pytest.skip("this build has no emulator: no nvcc was found")
    done, summary, log = run(tmp_path, FANANO_GPU_DAY_STAND_IN=str(build_dir))
    assert done.returncode == 0, summary + log
    assert "the emulator stood in" in summary
    found = results(summary)
    there = "environment", "info", "goldens", "bench, quick", "programs", "bench, full"
    assert {name for name, result in found.items() if result == "passed"} == set(there)
    left = "device", "pytest -m cuda", "a thousand repeats", "memcheck", "racecheck", "profile"
    assert {name: found[name] for name in (*left, "calibrate")} == dict.fromkeys(
        (*left, "calibrate"), "not run"
    )
    assert summary.count("no GPU") >= 5
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in ("bench-quick.json", "bench.json", "log.txt", "summary.txt"):
        assert name in names
    assert len(names) <= 8
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["left_out"] == 0


def test_one_step_that_fails_stops_no_other(tmp_path):
    """A Python that is none: all is still tried, and said."""
    done, summary, log = run(tmp_path, wheel=tmp_path, FANANO_GPU_DAY_PYTHON="false")
    found = results(summary)
    assert done.returncode == 1
    assert [found[name] for name in ("environment", "device", "info")] == ["failed"] * 3
    assert found["profile"] == found["bench, full"] == "not run"
    assert "failed: 3  timed out: 0" in summary
    assert "==== environment: failed" in log


def test_a_step_that_hangs_is_ended(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 100\n")
    python.chmod(0o755)
    environment = {"FANANO_GPU_DAY_PYTHON": str(python), "FANANO_GPU_DAY_SECONDS": "6"}
    done, summary, _ = run(tmp_path, wheel=tmp_path, **environment)
    assert done.returncode == 1
    assert results(summary)["environment"] == "timed out"
    assert "after 6 s" in summary


def test_no_step_is_begun_when_the_time_is_up(tmp_path):
    done, summary, _ = run(tmp_path, wheel=tmp_path, FANANO_GPU_DAY_SECONDS="1")
    assert done.returncode == 0
    assert set(results(summary).values()) == {"not run"}
    assert summary.count("the time is up") == len(results(summary)) > 10


# ---- the calibration table -----------------------------------------------------------------------


def figures(kernel, bound, machine="sm_90a"):
    numbers = {"bound": bound, "peak": 1000}
    return {"kernel": kernel, "machine": machine, "numbers": numbers, "limit": "shared"}


REPORT = [
    figures("flash_sm80_kernel<bfloat16, 64, false>", 50.0),
    figures("flash_sm80_kernel<bfloat16, 64, false>", 90.0, "sm_80"),
    figures("flash_sm80_kernel<bfloat16, 64, true>", 40.0),
    figures("flash_sm80_kernel<bfloat16, 128, false>", 60.0),
    figures("flash_sm80_kernel<float16, 64, false>", 55.0),
    figures("backward_sm80_kernel<bfloat16, 64, false>", 30.0),
    figures("softmax_kernel<bfloat16>", 5.0),
]


def row(group="prefill", dtype="bfloat16", dim=64, **more):
    outcome = {"seconds": 0.01, "mhz": 1000.0} | more
    shape = {"group": group, "dtype": dtype, "dim": dim, "shape": "(1, 2)", "causal": False}
    return shape | {"gflop": 1000.0, "contenders": {"fanano": outcome}}


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
