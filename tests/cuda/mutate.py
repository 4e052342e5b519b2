"""Breaks the CUDA kernels in one place at a time and sees whether their tests notice.

    python tests/cuda/mutate.py build/test            # all mutants
    python tests/cuda/mutate.py build/test barrier V  # those whose name has one of these words
    python tests/cuda/mutate.py build/test --part 1/2  # every second one, for two at a time

A mutant is an edit of one source. It is compiled into a copy of the folder, linked with the test's
own objects and run; it is killed by a report of the emulator ("diagnosed") or by wrong numbers.
Prints what became of each, and the score. Needs a build of the tests; several seconds a mutant.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mutants import MUTANTS

ROOT = Path(__file__).parents[2]


def edited(mutant):
    """The whole text of the source with one place changed."""
    text = (ROOT / "cuda" / mutant.what[0]).read_text()
    at = -1
    for _ in range(mutant.nth + 1):
        at = text.index(mutant.old, at + 1)
    return text[:at] + mutant.new + text[at + len(mutant.old) :]


def outcome(mutant, build, folder):
    """'killed: how', 'alive', or 'does not compile'."""
    source, test, instance = mutant.what
    shutil.copytree(ROOT / "cuda", folder / "cuda")
    (folder / "cpp").symlink_to(ROOT / "cpp")
    (folder / "cuda" / source).write_text(edited(mutant))
    objects = build / "tests" / "cuda" / "cuda_objects"
    how = json.loads((build / "generated" / "cuda.json").read_text())
    includes = [f"-I{path}" for path in (folder / "cuda", *how["includes"])]
    compiled = subprocess.run(
        [how["nvcc"], *how["flags"], *how["ptx"], *includes, "-c", "-o", folder / "k.o",
         build / "generated" / f"{instance}.cu"], capture_output=True, text=True
    )  # fmt: skip
    if compiled.returncode:
        return "does not compile: " + compiled.stderr[:300]
    instances = {p.stem for p in (build / "generated").glob("*.cu")} - {instance}
    others = [objects / f"{name}.o" for name in instances]
    emulator = next(build.rglob("libfanano_emulator.a"))
    subprocess.run(
        ["g++", objects / f"{test}_test.o", folder / "k.o", *others, emulator, "-o", folder / "t"],
        check=True,
    )
    try:
        ran = subprocess.run([folder / "t"], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "killed: it does not end"
    if ran.returncode == 0:
        return "alive"
    said = [line for line in ran.stderr.splitlines() if line.startswith("emulator: ")]
    return "killed: " + (said[0] if said else "wrong numbers")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("build", type=lambda path: Path(path).resolve())
    parser.add_argument("words", nargs="*", help="only mutants whose name has one of these")
    parser.add_argument("--part", default="1/1", help="1/2, 2/2: one half, and the other")
    asked = parser.parse_args()
    build, words = asked.build, asked.words
    part, parts = map(int, asked.part.split("/"))
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)][part - 1 :: parts]
    for test in sorted({m.what[1] for m in chosen}):  # one that fails would kill everything
        program = build / "tests" / "cuda" / f"cuda_{test}_test"
        if subprocess.run([program], capture_output=True).returncode:
            sys.exit(f"{program} fails without any mutant: mend it first")
    alive = []
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            result = outcome(mutant, build, Path(folder))
        if not result.startswith("killed"):
            alive.append(mutant)
        print(f"{mutant.what[0]}, {mutant.name}: {result} {mutant.why_alive}"[:230], flush=True)
    killed = len(chosen) - len(alive)
    print(f"{killed} of {len(chosen)} killed, {100 * killed / max(len(chosen), 1):.0f} %")
    return any(not m.why_alive for m in alive)


if __name__ == "__main__":
    sys.exit(main())
