"""Every kernel of the build is tested because it exists, and the one that was asked for is the one
that ran."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fanano

HERE = Path(__file__).parent
# What depends on the instruction set; ctest registers these once for each.
PER_ISA = (
    *("attention", "extremes", "softmax", "merge", "laws", "determinism", "guard"),
    *("masks", "decode", "modes", "bfloat16", "dropout"),
    *("backward", "backward_bits", "backward_hidden"),
)

CPU = [kernel for kernel in fanano.kernels() if kernel.device == "cpu"]
KERNELS = pytest.mark.parametrize("kernel", CPU, ids=lambda k: f"{k.device}-{k.isa}")


def forced(isa, *command, **more):
    return subprocess.run(
        [sys.executable, *command], env=os.environ | {"FANANO_ISA": isa},
        capture_output=True, text=True, **more,
    )  # fmt: skip


def skip_unless_runnable(kernel):
    if not kernel.runnable:
        pytest.skip(f"{kernel.isa} cannot run here: {kernel.why_not}")


REPORT = """
import fanano, numpy as np
x = np.ones((1, 1, 4, 8), np.float32)
plan = fanano.explain(x, x, x)
chosen = [k.isa for k in fanano.kernels() if k.chosen]
fanano.attention(x, x, x)
print(plan.isa, *chosen, plan.isa in str(plan))
"""


@KERNELS
def test_the_forced_one_runs(kernel):
    skip_unless_runnable(kernel)
    result = forced(kernel.isa, "-c", REPORT, timeout=60)
    assert result.stdout.split() == [kernel.isa, kernel.isa, "True"], result.stderr


SIGNAL_STACK = """
import ctypes, fanano, numpy as np, sys
class Stack(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(8192)
stack = Stack(ctypes.cast(memory, ctypes.c_void_p), 0, len(memory))
def set_stack(): return ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)
first = set_stack() if "first" in sys.argv else None
assert fanano.kernels()
fanano.attention(*3 * [np.ones((1, 1, 4, 8), np.float32)])
print(*(k.isa for k in fanano.kernels() if k.chosen), set_stack() if first is None else first)
"""
ON_LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems ask for nothing"
)


@ON_LINUX
def test_a_process_that_is_refused_tile_registers_does_without():
    """Linux refuses them where a signal stack has no room for them."""
    best = next(k.isa for k in CPU if k.runnable and k.isa != "amx")
    result = forced("", "-c", SIGNAL_STACK, "first", timeout=60)
    assert result.stdout == f"{best} 0\n", result.stderr


@ON_LINUX
def test_only_what_runs_is_asked_of_the_system():
    """Tile registers change a process: from then on a signal stack must have room for them."""
    result = forced("scalar", "-c", SIGNAL_STACK, timeout=60)
    assert result.stdout == "scalar 0\n", result.stderr


BITS = """
import fanano, numpy as np, hashlib
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((1, 2, 300, 64)).astype(np.float32) for _ in range(3))
print(hashlib.sha256(fanano.attention(q, k, v).tobytes()).hexdigest())
"""


def test_the_forced_one_computes():
    """Bits are promised for each instruction set alone: without FMA they differ from those with."""
    isas = [k.isa for k in CPU if k.runnable]
    if len(isas) < 2:
        pytest.skip("this machine runs one instruction set only")
    bits = {isa: forced(isa, "-c", BITS, timeout=60).stdout for isa in ("scalar", isas[0])}
    assert all(bits.values())
    assert bits["scalar"] != bits[isas[0]]


@pytest.mark.parametrize("algorithm", ["flash", "naive", "safe", "online"])
def test_this_process_runs_what_was_asked_for(algorithm):
    wanted = os.environ.get("FANANO_ISA")
    runnable = [k.isa for k in CPU if k.runnable]
    x = np.ones((1, 1, 4, 8), np.float32)
    plan = fanano.explain(x, x, x, algorithm=algorithm)
    assert plan.isa == (wanted or runnable[0])  # best first
    assert plan.algorithm == algorithm


def test_an_unknown_one_is_an_error():
    result = forced("avx3", "-c", REPORT, timeout=60)
    assert result.returncode == 1
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("ValueError: FANANO_ISA=avx3")
    assert all(k.isa in error for k in CPU)


@KERNELS
def test_one_that_cannot_run_is_an_error(kernel):
    if kernel.runnable:
        pytest.skip(f"{kernel.isa} runs here")
    result = forced(kernel.isa, "-c", REPORT, timeout=60)
    assert result.returncode == 1
    assert f"ValueError: FANANO_ISA={kernel.isa}" in result.stderr
    assert kernel.why_not.split()[-1] in result.stderr


def test_the_scalar_one_is_there():
    kernels = {k.isa: k for k in CPU}
    assert kernels["scalar"].runnable
    assert [k.chosen for k in kernels.values()].count(True) == 1


@KERNELS
def test_each_kernel(kernel):
    """The tests of all other files on the kernels that this process does not run."""
    skip_unless_runnable(kernel)
    if os.environ.get("FANANO_STAGE"):
        pytest.skip("ctest runs these files itself, once for each instruction set")
    if kernel.chosen:
        pytest.skip(f"{kernel.isa} is what this process runs")
    files = [str(HERE / f"test_{name}.py") for name in PER_ISA]
    result = forced(kernel.isa, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert result.returncode == 0, result.stdout[-5000:]
