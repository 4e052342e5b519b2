"""The script of a day with a GPU, run without one: what its tests share."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_day.sh"


def run(folder, *, wheel=None, **environment):
    """The finished process, the summary, the log. The script is the folder's, where it has one."""
    out = folder / "out"
    script = folder / "benchmarks" / "gpu_day.sh"
    environment = {"FANANO_GPU_DAY_PYTHON": sys.executable} | environment
    done = subprocess.run(
        ["bash", script if script.exists() else SCRIPT, wheel or folder, out],
        capture_output=True,
        text=True,
        cwd=folder,
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


def said(summary, step):
    return re.search(rf"^{step} .* s  (.*)$", summary, re.MULTILINE)[1]


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture(name="folder")
def a_folder(tmp_path):
    """As the day's: the scripts, what tests import, in the place of the tests none yet; and a
    compute-sanitizer that runs what it is given."""
    for name in "gpu_day.sh", "calibrate.py":
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        shutil.copy(ROOT / "benchmarks" / name, tmp_path / "benchmarks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tests = tmp_path / "tests" / "python"
    tests.mkdir(parents=True)
    for path in (ROOT / "tests" / "python").glob("*.py"):
        if not path.name.startswith(("test_", "conftest")):
            shutil.copy(path, tests)
    executable(
        tmp_path / "bin" / "compute-sanitizer", 'echo "asked: $*"\nfor last; do :; done; $last'
    )
    return tmp_path


def with_tests(folder, **files):
    """Marked as those on a GPU, unless they say themselves which of them are."""
    for name, text in files.items():
        marks = "" if "pytest.mark.cuda" in text else "pytestmark = pytest.mark.cuda\n"
        text = "import os, pytest, time, warnings\n" + marks + text
        (folder / "tests" / "python" / f"test_{name}.py").write_text(text)


@pytest.fixture(name="python_of_another")
def a_python_of_another(folder):
    """One that makes an environment, and there answers only what it is told to."""

    def made(*there):
        of_environment = folder / "bin" / "python"
        words = " ".join(f'*"{x}"*) exec {sys.executable} "$@" ;;' for x in ("-m pytest", *there))
        text = f'echo "$*" >> {folder}/asked\ncase "$*" in {words} *torch*) exit 0 ;; esac\nexit 1'
        executable(of_environment, text)
        host = folder / "bin" / "host"
        text = 'while [ "$1" != -m ] && [ $# -gt 1 ]; do shift; done; [ "$2" = venv ] || exit 1'
        link = f'for last; do :; done; mkdir -p "$last/bin"; cp {of_environment} "$last/bin"'
        executable(host, f"{text}\n{link}")
        return {"FANANO_GPU_DAY_PYTHON": str(host), "PATH": f"{host.parent}:{os.environ['PATH']}"}

    return made


# ---- a static report, and a row of a benchmark ---------------------------------------------------


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
