"""``fanano info``: what this build contains, and what this machine can run of it."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fanano

# By the names of their packages: asking for a version imports nothing.
LIBRARIES = (
    *("numpy", "ml_dtypes", "torch", "jax", "cupy", "cupy-cuda12x", "cupy-cuda13x"),
    *("ndonnx", "dpnp", "tinygrad", "mlx"),
)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="version, instruction sets, threads, CUDA, array libraries",
        description="Says what this build of fanano contains and what this machine can run of it.",
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    build = fanano.build_info()
    print(f"fanano {fanano.__version__}, compiled by {compiler(build)}")
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    forced = os.environ.get("FANANO_ISA")
    print("\nInstruction sets" + (f" (FANANO_ISA={forced})" if forced else ""))
    for kernel in fanano.kernels():
        state = "runs here" if kernel.runnable else f"cannot run here: {kernel.why_not}"
        mark = "*" if kernel.chosen else " "
        print(f" {mark} {kernel.isa:<12} {state}{', chosen' if kernel.chosen else ''}")
    print(f"\nThreads  {fanano.get_num_threads()}")
    print(f"CUDA     {cuda(build)}")
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


def cuda(build: dict[str, Any]) -> str:
    return "yes" if build["cuda"] else "no: this build has no CUDA kernels"


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
