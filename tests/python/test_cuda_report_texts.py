"""What the static report reads of a build, and the program itself: no nvcc."""

import json
import shutil
import subprocess
import sys

import pytest
from test_cuda_report import CUDA, LOG, build


def report(*arguments):
    command = [sys.executable, CUDA / "report.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_build_without_nvcc(tmp_path):
    ran = report(tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.startswith("no report: no nvcc: ")


def test_a_kernel_that_is_left_out():
    ours, of_a_test = "_ZN6fanano4cuda3oneIfEEvT_", "_ZN12_GLOBAL__N_13twoEv"
    names = build.demangled([ours])
    assert names == {ours: "one<float>"}
    assert build.left_out({ours: 0, of_a_test: 64}, ["other"]) == ["one<float>"]
    assert build.left_out({ours: 0}, ["one<float>", "other"]) == []
    assert build.left_out(None, []) == []


def test_a_build_that_has_not_ended(tmp_path):
    (tmp_path / "generated").mkdir()
    how = {"nvcc": "nvcc", "sources": ["k.cu"], "machines": ["sm_80"]}
    (tmp_path / "generated" / "cuda.json").write_text(json.dumps(how))
    ran = report(tmp_path)
    assert ran.returncode == 2
    assert "k.o and its log are not there: cmake --build" in ran.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
@pytest.mark.parametrize("status", [0, 3])
def test_what_nvcc_says_is_kept_and_what_matters_is_shown(tmp_path, status):
    text = LOG + "k.cu(3): warning: a; b\n"
    nvcc, out = tmp_path / "nvcc.py", tmp_path / "k.o"
    nvcc.write_text(f"import sys\nsys.stderr.write({text!r})\nsys.exit({status})\n")
    script = CUDA.parents[1] / "cmake" / "nvcc.cmake"
    ran = subprocess.run(
        ["cmake", "-D", f"OUT={out}", "-P", script, "--", sys.executable, nvcc],
        capture_output=True,
        text=True,
    )
    assert (ran.returncode == 0) == (status == 0)
    assert (tmp_path / "k.o.log").read_text() == text
    assert "C7514" in ran.stderr
    assert "a; b" in ran.stderr
    assert "Compiling entry" not in ran.stderr
    assert "spill" not in ran.stderr


def test_the_texts_of_an_object(tmp_path):
    """By tools that do no more than write down what they were asked for."""
    made = tmp_path / "cuda_objects" / "k.o"
    made.parent.mkdir()
    made.write_text("")
    made.with_name("k.o.log").write_text(LOG)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {
        "cuobjdump": "touch k.1.sm_80.cubin k.2.sm_90a.cubin k.3.sm_90.cubin",
        "nvdisasm": "echo of $(basename $1)",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    nvcc = tools / "nvcc"
    for number, machine in enumerate(("sm_80", "sm_90a", "sm_90"), 1):
        name = f"k.{number}.{machine}.cubin"
        assert build.texts(tmp_path, nvcc, "k.cu", machine) == (LOG, f"of {name}\n")
    with pytest.raises(build.Failed, match="has 0 pieces of machine code for sm_100, not one"):
        build.texts(tmp_path, nvcc, "k.cu", "sm_100")


def test_a_tool_that_fails():
    with pytest.raises(build.Failed, match=r"^c\+\+filt --nonsense\n.*nonsense"):
        build.run("c++filt", "--nonsense")


def test_what_tests_have_launched(tmp_path):
    assert build.launches(tmp_path) is None
    folder = tmp_path / "tests" / "cuda" / "launches"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("_Z3onev 16\n_Z3onev 1024\n")
    (folder / "b.txt").write_text("_Z3onev 512\n_Z3twov 0\n")
    assert build.launches(tmp_path) == {"_Z3onev": 1024, "_Z3twov": 0}
