"""What a build of the tests has left: what ptxas said of each kernel, its machine code as nvdisasm
prints it, and what the tests launched it with."""

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
    """nvcc, sources, machines: as cmake/cuda.cmake tells of them."""
    path = build / "generated" / "cuda.json"
    if not path.exists():
        raise NoTool(f"no nvcc: {build} has no CUDA kernels (its configuration says why)")
    return json.loads(path.read_text())


def tool(name, nvcc):
    """cuobjdump or nvdisasm: beside nvcc, where pip puts it, or on PATH."""
    places = [Path(p) / "nvidia" for p in sys.path if p]
    installed = [p for place in places for p in place.glob(f"*/bin/{name}")]
    for path in Path(nvcc).resolve().parent / name, *installed:
        if path.exists():
            return path
    if on_path := shutil.which(name):
        return Path(on_path)
    raise NoTool(f"no {name}: pip install nvidia-cuda-{name}")


def run(*command, **options):
    command = [str(c) for c in command]
    ran = subprocess.run(command, capture_output=True, text=True, **options)
    if ran.returncode:
        raise Failed(f"{' '.join(command)}\n{ran.stderr}")
    return ran


def texts(build, nvcc, source, machine):
    """ptxas's, of all machines, and nvdisasm's of this one."""
    made = build / "cuda_objects" / f"{Path(source).stem}.o"
    log = made.with_name(f"{made.name}.log")
    if not made.exists() or not log.exists():
        raise Failed(
            f"{made} and its log are not there: cmake --build {build}; a module without CUDA "
            "(its configuration says why) has none"
        )
    with tempfile.TemporaryDirectory() as folder:
        run(tool("cuobjdump", nvcc), "-xelf", "all", made, cwd=folder)
        cubins = list(Path(folder).glob(f"*.{machine}.cubin"))
        if len(cubins) != 1:
            raise Failed(f"{made} has {len(cubins)} pieces of machine code for {machine}, not one")
        return log.read_text(), run(tool("nvdisasm", nvcc), *cubins).stdout


def demangled(names):
    """As a reader knows them: without namespaces, return type and parameters."""
    if not names:
        return {}
    ran = run("c++filt", *names)
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
