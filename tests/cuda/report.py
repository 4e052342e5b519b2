"""The static report of the CUDA kernels: what is known of them without running them.

    python tests/cuda/report.py build/test              # after ctest, whose launches it reads
    python tests/cuda/report.py build/test --json FILE  # the same figures for programs
    python tests/cuda/report.py build/test bfloat16     # of sources with one of these words

Reads the machine code that the module of that build has, and prints registers, shared memory,
occupancy, and of the main loop what its instructions occupy and what that leaves of the machine's
peak. Exits 1, in words, where a kernel crosses a limit of tests/cuda/thresholds.toml. Needs
cuobjdump, nvdisasm (pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm) and c++filt; no GPU.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from static_report import build, figures, ptxas, sass, table, thresholds


def of_texts(log, disassembly, machine, launches):
    """Figures of all kernels of one object, under their readable names."""
    resources, kernels = ptxas.parse(log, machine), sass.parse(disassembly)
    if set(resources) != set(kernels):
        different = set(resources) ^ set(kernels)
        raise build.Failed(f"ptxas and nvdisasm tell of different kernels: {different}")
    names = build.demangled(list(kernels))
    found = []
    for mangled, kernel in kernels.items():
        its = figures.of(mangled, machine, resources[mangled], kernel, launches)
        its.kernel = names[mangled]
        found.append(its)
    return found


def gather(folder, words, jobs):
    """Figures of every kernel of every object on every machine; the names of kernels that should be
    among them, and are not."""
    how = build.how(folder)
    launches = build.launches(folder)
    sources = [s for s in how["sources"] if not words or any(w in Path(s).name for w in words)]
    todo = [(source, machine) for source in sources for machine in how["machines"]]
    with ThreadPoolExecutor(jobs) as pool:
        texts = pool.map(lambda t: build.texts(folder, how["nvcc"], *t), todo)
        found = [
            f
            for (_, machine), (log, disassembly) in zip(todo, texts, strict=True)
            for f in of_texts(log, disassembly, machine, launches)
        ]
    if launches is None:
        print("no test has run: dynamic shared memory is not known, and not counted")
    missing = [] if words else build.left_out(launches, (f.kernel for f in found))
    return sorted(found, key=lambda f: f.kernel), missing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build of the tests")
    parser.add_argument("words", nargs="*", help="of the names of sources; none: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument(
        "--thresholds", type=Path, default=Path(__file__).parent / "thresholds.toml"
    )
    arguments = parser.parse_args()
    try:
        limits = thresholds.read(arguments.thresholds)
        found, missing = gather(arguments.build.resolve(), arguments.words, arguments.jobs)
    except (build.NoTool, build.Failed, thresholds.Malformed) as error:
        print(f"no report: {error}", file=sys.stderr)
        return 2
    table.show(found, rich=sys.stdout.isatty() and find_spec("rich") is not None)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(f) for f in found], indent=1))
    complaints = thresholds.judge(limits, found)
    complaints += [
        f"{name}: a test has launched it, and it is not in this report" for name in missing
    ]
    for words in complaints:
        print(words)
    print(f"{len(found)} kernels, {len(complaints)} limits crossed")
    return int(bool(complaints) or not found)


if __name__ == "__main__":
    sys.exit(main())
