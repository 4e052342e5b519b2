"""``fanano info``: what this build contains, and what this machine can run of it."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fanano

from . import errors

# By the names of their packages: asking for a version imports nothing.
LIBRARIES = (
    *("numpy", "ml_dtypes", "torch", "jax", "cupy", "cupy-cuda12x", "cupy-cuda13x"),
    *("ndonnx", "dpnp", "tinygrad", "mlx"),
)
# What of fanano needs one of them, by our modules' names.
ADAPTERS = {
    "fanano.adapters.numpy": "numpy",
    "fanano.adapters.torch": "torch",
    "fanano.adapters.jax": "jax",
    "fanano.adapters.cupy": "cupy",
    "fanano.torch": "torch",
    "fanano.jax": "jax",
    "fanano.transformers": "transformers",
}
LOAD_SECONDS = 300.0


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="version, instruction sets, threads, CUDA, array libraries",
        description="Says what this build of fanano contains, what this machine can run of it, and "
        "whose attention torch's is in this process.",
    )
    parser.add_argument(
        "--load",
        action="store_true",
        help="import each adapter, in a process of its own, and say what failed",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    build = fanano.build_info()
    print(f"fanano {fanano.__version__}, compiled by {compiler(build)}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    forced = os.environ.get("FANANO_ISA")
    print("\nInstruction sets" + (f" (FANANO_ISA={forced})" if forced else ""))
    kernels = fanano.kernels()
    for kernel in (kernel for kernel in kernels if kernel.device == "cpu"):
        state = "runs here" if kernel.runnable else f"cannot run here: {kernel.why_not}"
        mark = "*" if kernel.chosen else " "
        print(f" {mark} {kernel.isa:<12} {state}{', chosen' if kernel.chosen else ''}")
    print(f"\nThreads  {fanano.get_num_threads()}")
    print(f"CUDA     {cuda([kernel for kernel in kernels if kernel.device == 'cuda'])}")
    print(f"JAX      {handlers()}")
    print(f"\nAttention of torch  {under_torch()}")
    print("\nAdapters" + (", each imported in a process of its own" if arguments.load else ""))
    for module, library in ADAPTERS.items():
        state = f"{library} is not installed"
        if errors.installed(library):
            state = loaded(module) if arguments.load else f"{library} is installed"
        print(f"   {module:<22} {state}")
    print("   anything else with __dlpack__: by fanano.adapters.dlpack")
    print("\nArray libraries found")
    found = {name: number for name in LIBRARIES if (number := installed(name))}
    for name, number in found.items():
        print(f"   {name:<12} {number}")
    if not found:
        print("   none; anything with __dlpack__ works")
    return 0


def compiler(build: dict[str, Any]) -> str:
    name: str = build["compiler"]
    return f"GCC {name}" if name[0].isdigit() else name  # Clang's own text says that it is Clang


def cuda(kernels: list[Any]) -> str:
    if not kernels:
        return "no: this build has no CUDA kernels"
    dtypes: dict[str, list[str]] = {}
    for kernel in kernels:
        dtypes.setdefault(f"{kernel.name} ({kernel.isa})", []).append(kernel.dtype)
    first = kernels[0]
    state = "run here" if first.runnable else f"cannot run here: {first.why_not}"
    rows = [f"   {name:<22} {', '.join(of)}" for name, of in dtypes.items()]
    return "\n".join([f"{len(kernels)} kernels {state}", *rows])


def handlers() -> str:
    """What compiled JAX calls; docs/jax.md."""
    major, minor = fanano._core.xla_version()
    if not (major or minor):
        return "no handlers: this build found no jaxlib's headers; only eager calls work"
    return f"handlers by XLA's foreign function interface {major}.{minor}"


def under_torch() -> str:
    """torch is not imported for this: where nobody has, nothing can be installed under it."""
    installing = sys.modules.get("fanano.torch.installing")
    if installing is None or not installing.is_installed():
        return "its own: fanano.torch.install(), or fanano run SCRIPT, puts fanano under it"
    names = " and ".join(f"aten::{name}" for name in (installing.FORWARD, installing.BACKWARD))
    there = "; its flash attention on CUDA" if installing.flash_cuda.is_active() else ""
    return f"fanano's, by fanano.torch.install(): {names} on CPUs{there}"


def loaded(module: str) -> str:
    """Whether a new process can import it; what it said, if not."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        return f"was not loaded after {LOAD_SECONDS:g} seconds"
    if not done.returncode:
        return "can be loaded"
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"cannot be loaded: {said[-1]}"


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
