"""From a source to what ptxas says of it and what nvdisasm prints: as CMake builds the kernels, for
one machine."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class NoTool(Exception):
    pass


class Failed(Exception):
    pass


def how(build):
    """What cmake/cuda.cmake has left there: nvcc, its flags, sources, machines."""
    path = build / "generated" / "cuda.json"
    if not path.exists():
        raise NoTool(f"no nvcc: {build} has no CUDA kernels (its configuration says why)")
    return json.loads(path.read_text())


def disassembler(nvcc):
    """On PATH, beside nvcc, or where pip puts nvidia-cuda-nvdisasm."""
    places = [Path(p) / "nvidia" for p in sys.path if p]
    beside = [Path(nvcc).resolve().parent / "nvdisasm"]
    installed = [p for place in places for p in place.glob("*/bin/nvdisasm")]
    on_path = shutil.which("nvdisasm")
    for path in [Path(on_path)] if on_path else [*beside, *installed]:
        if path.exists():
            return path
    raise NoTool("no nvdisasm: pip install nvidia-cuda-nvdisasm")


def run(command):
    ran = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if ran.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{ran.stderr}")
    return ran


def texts(how, nvdisasm, source, machine):
    """ptxas's and nvdisasm's."""
    flags = [f for f in how["flags"] if f != "-lineinfo"]
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        compiled = run(
            [how["nvcc"], *flags, *(f"-I{folder}" for folder in how["includes"]),
             "-gencode", f"arch={how['virtual']},code={machine}", "-Xptxas", "-v",
             "-cubin", "-x", "cu", source, "-o", cubin]
        )  # fmt: skip
        return compiled.stderr, run([nvdisasm, cubin]).stdout


def demangled(names):
    """As a reader knows them: without namespaces, return type and parameters."""
    if not names:
        return {}
    ran = run(["c++filt", *names])
    return {name: short(line) for name, line in zip(names, ran.stdout.splitlines(), strict=True)}


def short(signature):
    text = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", signature)
    text = re.sub(r"^void ", "", text)
    depth = 0
    for at, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return text[:at]
    return text


def launches(build):
    """The most dynamic shared memory that the tests have launched each kernel with. None: no test
    has run."""
    files = sorted((build / "tests" / "cuda" / "launches").glob("*.txt"))
    found = {}
    for path in files:
        for line in path.read_text().splitlines():
            name, dynamic = line.split()
            found[name] = max(int(dynamic), found.get(name, 0))
    return found if files else None


def left_out(launches, reported):
    """Kernels of ours (tests have some of their own) that tests have launched, and no source that
    CMake has told of has: the module may have them from elsewhere."""
    ours = [name for name in launches or () if "6fanano4cuda" in name]
    return sorted(set(demangled(ours).values()) - set(reported))
