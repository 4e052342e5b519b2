"""The day with a GPU, without one: its script to the end, with the emulator in the GPU's place, and
with a Python that says that there is one."""

import base64
import hashlib
import importlib.util
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
from gpu_day import (  # noqa: F401
    REPORT,
    ROOT,
    SCRIPT,
    a_folder,
    a_python_of_another,
    executable,
    results,
    row,
    run,
    said,
    with_tests,
)

import fanano


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


TWO = """
def test_which_runs():
    assert os.environ.get("FANANO_GPU_DAY") == {day!r}
    warnings.warn("deprecated", DeprecationWarning)
def test_which_does_not():
    pytest.skip("why not")
"""
HERE_AND_THERE = """
there = pytest.mark.cuda
def test_here():
    pass
@there
def test_there():
    pass
"""
PROGRAMS = "flash_nan", "decode", "backward_sm80"
SANITIZED = [
    f"{tool}, {name.removesuffix('_sm80')}"
    for name in PROGRAMS
    for tool in ("memcheck", "racecheck")
]


@pytest.fixture
def needs_pip():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("the day is for a Python that has torch")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip to install a wheel with")
    if shutil.which("bash") is None:
        pytest.skip("no bash runs the script")


def test_to_its_end_with_the_emulator(needs_pip, build_dir, folder):
    """All that is done with a GPU is done; the programs, which take their time, but for one."""
    if not (build_dir / "tests" / "stage_cuda").exists():
        pytest.skip("this build has no emulator: no nvcc was found")
    stand_in = folder / "build"
    for part in "stage_cuda", "cuda/cuda_conformance":
        (stand_in / "tests" / part).parent.mkdir(parents=True, exist_ok=True)
        (stand_in / "tests" / part).symlink_to(build_dir / "tests" / part)
    for name in "softmax", *PROGRAMS:
        executable(stand_in / "tests" / "cuda" / f"cuda_{name}_test", f"echo {name} ran")
    two = TWO.format(day=None)
    with_tests(folder, torch_cuda=two, torch_cuda_repeats=two, torch_dlpack_cuda=HERE_AND_THERE)
    environment = {"FANANO_GPU_DAY_STAND_IN": str(stand_in)}
    environment["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    done, summary, log = run(folder, wheel=wheel_of_the_stage(folder), **environment)
    assert done.returncode == 0, summary + log
    assert "the emulator stood in" in summary
    found = results(summary)
    there = {"environment", "info", "goldens", "bench, quick", "torch_cuda", "torch_cuda_repeats"}
    there |= {"torch_dlpack_cuda", "programs", *SANITIZED, "profile", "bench, full", "calibrate"}
    assert {name for name, result in found.items() if result == "passed"} == there
    assert {result for name, result in found.items() if name not in there} == {"not run"}
    assert said(summary, "device") == "no GPU"
    assert said(summary, "torch_cuda").startswith("1 passed, 1 skipped, 1 warning")
    assert said(summary, "torch_dlpack_cuda").startswith("2 passed")
    assert said(summary, "cupy") == "there is no test_cupy.py"
    names = {path.name for path in (folder / "out").iterdir()}
    assert names >= {"bench-quick.json", "bench.json", "log.txt", "summary.txt", "profile.json"}
    assert names >= {"calibration.json", "test_torch_cuda.xml"}
    assert len(names) <= 13
    assert json.loads((folder / "out" / "bench.json").read_text())["left_out"] == 0
    assert re.search(r"asked: --tool racecheck .*/cuda_decode_test\ndecode ran", log)


def test_with_a_gpu(folder, python_of_another):
    """What is asked for where there is one. That says a Python that can do no more than tests."""
    for name in "conformance", "flash_test", *(f"{name}_test" for name in PROGRAMS):
        executable(folder / "programs" / name, f'echo "{name} ran $1"')
    pack = runpy.run_path(str(ROOT / "benchmarks" / "gpu_day_folder.py"))["pack_programs"]
    pack(folder)
    with_tests(
        folder,
        torch_cuda=TWO.format(day="1"),
        torch_dlpack_cuda=HERE_AND_THERE,
        cupy='import gpu\ndef test(): gpu.none("CuPy is silent")',
    )
    out = folder / "out"
    out.mkdir()
    result = {"device": "cuda", "date": "", "machine": "", "capability": "9.0"}
    result |= {"multiprocessors": 100, "rows": []}
    (out / "bench.json").write_text(json.dumps(result))  # as it is before the first row
    (out / "bench-quick.json").write_text(json.dumps(result | {"rows": [row()]}))
    (folder / "report.json").write_text(json.dumps(REPORT))
    environment = python_of_another("calibrate.py", "json.load", "-m tarfile")
    done, summary, log = run(folder, **environment)
    assert done.returncode == 1
    found = results(summary)
    passed = {"device", "goldens", "torch_cuda", "torch_dlpack_cuda", "programs", *SANITIZED}
    passed |= {"calibrate"}
    assert {name for name, result in found.items() if result == "passed"} == passed, summary + log
    failed = {"environment", "info", "bench, quick", "cupy", "profile", "bench, full"}
    assert {name for name, result in found.items() if result == "failed"} == failed
    assert "on the day with a GPU CuPy is silent" in log
    assert said(summary, "torch_cuda").startswith("1 passed, 1 skipped, 1 warning")
    assert said(summary, "torch_dlpack_cuda").startswith("1 passed, 1 deselected")
    for name in PROGRAMS:
        words = f"--tool memcheck --launch-count 40 --error-exitcode 1 .*/programs/{name}_test"
        assert re.search(f"asked: {words}\n{name}_test ran", log)
    asked = (folder / "asked").read_text()
    assert f"-m fanano bench --device cuda --quick --json {out}/bench-quick.json" in asked
    assert f"-m fanano bench --device cuda --dtype bfloat16 --json {out}/bench.json" in asked
    assert "-m fanano profile --device cuda --dtype bfloat16" in asked
    assert len(json.loads((out / "calibration.json").read_text())) == 1


def test_every_file_of_tests_on_a_gpu_has_a_step():
    marked = {
        path.stem.removeprefix("test_")
        for path in Path(__file__).parent.glob("test_*.py")
        if re.search(
            r"^(@pytest\.mark\.cuda|pytestmark = .*cuda|from torch_gpu)", path.read_text(), re.M
        )
    }
    steps = re.findall(r"^step (\w+) (\d+) tests \1$", SCRIPT.read_text(), re.MULTILINE)
    assert len(marked) > 5
    assert {name for name, _ in steps} == marked
    kinds = [name.startswith("torch") for name, _ in steps]
    assert kinds == sorted(kinds, reverse=True)  # torch first


def test_each_step_up_to_the_repeats_has_its_turn():
    """Though all that stand before it hang."""
    text = SCRIPT.read_text()
    most = int(re.search(r"seconds=\$\{FANANO_GPU_DAY_SECONDS:-(\d+)\}", text)[1])
    day = text[: text.index("step cupy")]
    limits = [int(x) for x in re.findall(r'^step (?:"[^"]*"|\w+) (\d+) ', day, re.MULTILINE)]
    assert len(limits) == 11
    assert sum(limits) <= most <= 600 - 15
