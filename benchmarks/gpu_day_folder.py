"""Everything that benchmarks/gpu_day.sh needs on a machine without a network, in one folder.

    cmake --build --preset test --target gpu_day

links the programs into build/test/gpu_day/programs, and calls this for the rest: packs them, adds
the wheel, the tests, the scripts, the packages that a machine with torch may lack (for its Python,
--for), and the static report where its tools are installed.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_BYTES = 56 * 2**20
# With what they need; what else they need (NumPy) comes with torch.
PACKAGES = (
    *("nanobind-backend", "ml_dtypes", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("pytest", "iniconfig", "pluggy", "packaging", "hypothesis", "sortedcontainers"),
)
PLATFORMS = "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"


def copy(source: Path, folder: Path, *patterns: str) -> None:
    target = folder / source.relative_to(ROOT)
    target.mkdir(parents=True, exist_ok=True)
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            shutil.copy2(path, target)


def wheels(folder: Path, python: str) -> None:
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
         "--python-version", python, "--implementation", "cp", *platforms, "-d", folder, *PACKAGES],
        check=True,
    )  # fmt: skip


def pack_programs(folder: Path) -> None:
    """Each of them carries the kernels: in one archive that remembers all of it they are there
    once, 10 MiB in the place of 36."""
    remembers = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 2**27}]
    file = folder / "programs.tar.xz"
    with (
        lzma.open(file, "wb", filters=remembers) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        archive.add(folder / "programs", "programs")
    shutil.rmtree(folder / "programs")  # the next build links them again, in a second each


def static_report(build: Path, file: Path) -> None:
    """Its exit code says what crosses a limit, which is not asked here."""
    script = ROOT / "tests" / "cuda" / "report.py"
    subprocess.run([sys.executable, script, build, "--json", file], stdout=subprocess.DEVNULL)
    if not file.exists():
        print("no static report: the calibration table will not be made there", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, help="a build of the tests")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="default: built here, with all kernels")
    parser.add_argument("--for", dest="python", default="3.12", metavar="VERSION")
    arguments = parser.parse_args()
    folder = arguments.folder
    for stale in (
        *folder.glob("*.whl"),
        folder / "wheels",
        folder / "tests",
        folder / "report.json",
    ):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    copy(ROOT / "tests" / "python", folder, "*.py")
    copy(ROOT / "benchmarks", folder, "gpu_day.sh", "calibrate.py")
    shutil.copy2(ROOT / "pyproject.toml", folder)
    pack_programs(folder)
    wheels(folder / "wheels", arguments.python)
    static_report(arguments.build, folder / "report.json")
    if arguments.wheel:
        shutil.copy2(arguments.wheel, folder)
    else:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT]
        fewer = "FANANO_CUDA_DIMS", "FANANO_CUDA_HOPPER"  # of what a build for tests leaves out
        every = {name: x for name, x in os.environ.items() if name not in fewer}
        subprocess.run([*build, "-C", "fanano.cuda=require"], check=True, env=every)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB; there: benchmarks/gpu_day.sh fanano-*.whl OUT")
    if size > MOST_BYTES:
        sys.exit(f"more than {MOST_BYTES / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
