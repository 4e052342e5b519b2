"""What a build says of its CUDA kernels, with and without nvcc, on machines with and without a
driver; and what the module has of CUDA, which is nothing but its kernels."""

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from scikit_build_core.settings.skbuild_read_settings import SettingsReader

import fanano
from fanano import _core
from fanano.cli import main

ROOT = Path(__file__).parents[2]
CUDA = [kernel for kernel in fanano.kernels() if kernel.device == "cuda"]
BUILT = fanano.build_info()["cuda"]
with_kernels = pytest.mark.skipif(not BUILT, reason="this build has no CUDA kernels: no nvcc")


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


# ---- what it says --------------------------------------------------------------------------------


def test_the_table_is_what_the_build_has():
    rows = [(kernel.name, kernel.dtype, kernel.isa) for kernel in CUDA]
    assert fanano.build_info()["cuda_kernels"] == tuple(rows)
    assert bool(rows) == BUILT
    assert len(set(rows)) == len(rows)
    for name, dtype, isa in rows:
        assert name
        assert re.fullmatch(r"sm_\d+", isa)
        assert dtype in ("float64", "float32", "bfloat16", "float16")
    assert not any(kernel.chosen for kernel in CUDA)
    assert len({kernel.why_not for kernel in CUDA}) <= 1
    for kernel in CUDA:
        assert kernel.runnable == (kernel.why_not == "")
        assert all(word in repr(kernel) for word in ("cuda", kernel.isa, kernel.name, kernel.dtype))


def test_those_of_the_cpu_come_first_and_have_no_names():
    devices = [kernel.device for kernel in fanano.kernels()]
    assert devices == sorted(devices)  # cpu, cuda
    cpu = [kernel for kernel in fanano.kernels() if kernel.device == "cpu"]
    assert {(kernel.name, kernel.dtype) for kernel in cpu} == {("", "")}


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    if not BUILT:
        assert "CUDA     no: this build has no CUDA kernels\n" in out
        return
    state = "run here" if CUDA[0].runnable else f"cannot run here: {CUDA[0].why_not}"
    assert f"CUDA     {len(CUDA)} kernels {state}\n" in out
    for kernel in CUDA:
        (line,) = (line for line in out.splitlines() if f"{kernel.name} ({kernel.isa}) " in line)
        assert kernel.dtype in re.split(r",? +", line)


@with_kernels
def test_a_machine_without_a_device_is_told_why():
    code = "import fanano; print(*{k.why_not for k in fanano.kernels() if k.device == 'cuda'})"
    done = python(code, CUDA_VISIBLE_DEVICES="")
    assert done.stderr == ""
    words = ("this machine has no CUDA driver", "the driver sees no CUDA device")
    assert done.stdout.strip() in words or "is too old" in done.stdout


@with_kernels
def test_nobody_looks_for_a_driver_before_someone_asks():
    code = """
import sys, numpy as np
import fanano
x = np.ones((1, 1, 4, 8), np.float32)
fanano.attention(x, x, x), fanano.explain(x, x, x), fanano.build_info()
print("asked", file=sys.stderr)
fanano.kernels()
"""
    before, asked, after = python(code, LD_DEBUG="libs").stderr.partition("asked")
    if "find library" not in before:
        pytest.skip("this loader does not say what it looks for (LD_DEBUG is glibc's)")
    assert asked
    assert "libcuda" not in before
    assert "libcuda.so" in after


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_may_ask_too():
    code = """
import os, numpy as np
import fanano
x = np.ones((1, 1, 4, 8), np.float32)
before = fanano.kernels()
child = os.fork()
if child == 0:
    fanano.attention(x, x, x)
    os._exit(len(fanano.kernels()) != len(before))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = python(code)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


# ---- what the module holds -----------------------------------------------------------------------

MACHINE_CODE, PTX = 2, 1


def fat_binaries(data):
    """{(kind, architecture)} of each fat binary: the header and the entries that nvcc writes."""
    for match in re.finditer(re.escape(struct.pack("<IH", 0xBA55ED50, 1)), data):
        header_bytes, size = struct.unpack_from("<HQ", data, match.start() + 6)
        at, entries = match.start() + header_bytes, set()
        end = at + size
        while at < end:
            kind, _, header_bytes, size = struct.unpack_from("<HHIQ", data, at)
            (architecture,) = struct.unpack_from("<I", data, at + 28)
            entries.add((kind, architecture))
            at += header_bytes + size
        yield entries


@with_kernels
def test_there_is_the_machine_code_that_it_says_and_ptx_for_what_comes():
    said = fanano.build_info()["cuda_machine_code"]
    assert said in (("sm_80", "sm_90a"), ("sm_80",))  # without FANANO_CUDA_HOPPER
    expected = {(MACHINE_CODE, int(re.sub(r"\D", "", machine))) for machine in said}
    found = list(fat_binaries(Path(_core.__file__).read_bytes()))
    assert len(found) > 1
    for entries in found:
        assert entries == expected | {(PTX, 80)}


@with_kernels
def test_the_runtime_is_inside_and_shows_nothing():
    for tool in ("nm", "objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: the module cannot be looked at")
    look = {"check": True, "capture_output": True, "text": True}
    symbols = subprocess.run(["nm", "-D", _core.__file__], **look).stdout
    assert "PyInit__core" in symbols
    assert not re.search("cuda|fatbin", symbols, re.IGNORECASE)
    headers = subprocess.run(["objdump", "-p", _core.__file__], **look).stdout
    needed = re.findall(r"NEEDED\s+(\S+)", headers)
    assert needed
    assert not [name for name in needed if "cuda" in name]


# ---- the switch ----------------------------------------------------------------------------------


def configure(tmp_path, nvcc=None, dims=None, **definitions):
    """What CMake says of CUDA where nvcc is a script of ours, or there is none; dims: what the
    environment says of them."""
    hidden = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "nvcc").exists()]
    if nvcc:
        script = tmp_path / "bin" / "nvcc"
        script.parent.mkdir()
        script.write_text(f"#!/bin/sh\n{nvcc}\n")
        script.chmod(0o755)
        hidden.insert(0, str(script.parent))
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH")}
    environment["PATH"] = os.pathsep.join(hidden)
    environment.pop("FANANO_CUDA_DIMS", None)
    if dims:
        environment["FANANO_CUDA_DIMS"] = dims
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool, path=environment["PATH"]) is None:
            pytest.skip(f"{tool} is not installed, or stands beside nvcc")
    defined = [f"-D{name}={value}" for name, value in definitions.items()]
    return subprocess.run(
        ["cmake", "-G", "Ninja", "-B", tmp_path / "build", "-DFANANO_PYTHON=OFF", *defined, ROOT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_build_without_nvcc_is_for_the_cpu(tmp_path):
    done = configure(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-- CUDA: no kernels (no nvcc is on PATH, in CUDA_HOME, in CUDA_PATH or" in done.stdout


def test_an_nvcc_that_does_not_work_is_as_good_as_none(tmp_path):
    done = configure(tmp_path, nvcc="echo this nvcc is broken >&2; exit 1")
    assert done.returncode == 0, done.stderr
    assert "nvcc does not compile: this nvcc is broken" in done.stdout
    assert "nvcc does not compile what it was tried with)" in done.stdout


@pytest.mark.parametrize(("value", "nvcc"), [("REQUIRE", None), ("PIP", "exit 0")])
def test_who_wants_cuda_is_told_what_is_missing(tmp_path, value, nvcc):
    done = configure(tmp_path, nvcc, FANANO_CUDA=value)
    assert done.returncode != 0
    words = " ".join(done.stderr.split())
    assert f"FANANO_CUDA={value}: no nvcc is" in words
    assert "set CUDA_HOME to it; or let pip fetch nvcc: pip install -C fanano.cuda=pip" in words


def test_the_environment_goes_before_what_the_build_had(tmp_path):
    def said(**arguments):
        done = configure(tmp_path, FANANO_CUDA="OFF", **arguments)
        assert done.returncode == 0, done.stderr
        (cached,) = re.findall(
            r"^FANANO_CUDA_DIMS:STRING=(.*)$",
            (tmp_path / "build" / "CMakeCache.txt").read_text(),
            re.M,
        )
        return cached, re.findall(r"FANANO_CUDA_DIMS is (.*), as the environment says", done.stdout)

    assert said(FANANO_CUDA_DIMS="96") == ("96", [])
    assert said(dims="64") == ("64", ["64"])
    assert said(dims="32;64") == ("32;64", ["32;64"])
    assert said(dims="32;64") == ("32;64", [])
    assert said() == ("32;64", [])


def test_a_word_that_is_none_is_refused(tmp_path):
    done = configure(tmp_path, FANANO_CUDA="yes")
    assert done.returncode != 0
    assert "FANANO_CUDA is yes, expected AUTO, OFF, REQUIRE or PIP" in " ".join(done.stderr.split())


# ---- the build's switches ------------------------------------------------------------------------


@pytest.mark.parametrize("jax", ["auto", "off", "require"])
@pytest.mark.parametrize("cuda", ["auto", "off", "require", "pip"])
def test_one_switch_of_the_build_leaves_the_other_alone(cuda, jax):
    config = {"fanano.cuda": cuda, "fanano.jax": jax}
    reader = SettingsReader.from_file(ROOT / "pyproject.toml", config, state="wheel")
    settings = reader.settings
    asked = {"FANANO_CUDA": cuda.upper(), "FANANO_JAX": jax.upper()}
    assert settings.cmake.define == {x: y for x, y in asked.items() if y != "AUTO"}
    fetched = [text.split(">")[0].split("=")[0] for text in settings.build.requires]
    assert ("jaxlib" in fetched) == (jax != "off")
    assert ("nvidia-cuda-nvcc" in fetched) == (cuda == "pip")
