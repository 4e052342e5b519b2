"""What must hold of the sources, and of the objects built from them, on whatever machine."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("cpp", "cuda", "src", "tests", "cmake", "benchmarks", "examples")
    for suffix in ("*.py", "*.cpp", "*.hpp", "*.cuh", "*.in", "*.cmake", "CMakeLists.txt")
    for path in (ROOT / folder).rglob(suffix)
] + [ROOT / "CMakeLists.txt"]
ISA_OF = re.compile(r"fanano_(\w+)\.dir$")

ISA_TABLE = (ROOT / "cmake" / "isa.cmake").read_text()
OWN = {k: set(v.split()) for k, v in re.findall(r"set\(own_(\w+) (.*)\)", ISA_TABLE)}
SHARED = dict(re.findall(r"set\(shared_(\w+) (.*)\)", ISA_TABLE))  # whose other kernels a row has


def lines(path):
    return path.read_text().splitlines()


def tool(*command):
    """The output of one of binutils."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: objects cannot be looked at")
    # Sanitized runs preload their libraries into everything; binutils need none.
    clean = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=clean
    ).stdout.splitlines()


# ---- sources -------------------------------------------------------------------------------------


def test_no_line_is_over_100_columns():
    assert len(SOURCES) > 50
    wide = [f"{p}:{n}" for p in SOURCES for n, line in enumerate(lines(p), 1) if len(line) > 100]
    assert wide == []


def test_no_file_is_over_400_lines():
    kernels = [p for p in SOURCES if p.suffix in (".cpp", ".hpp", ".cuh")]
    assert [f"{p}: {len(lines(p))}" for p in kernels if len(lines(p)) > 400] == []


def includes(path):
    """What a file includes in quotes, as paths below cpp/."""
    for line in lines(path):
        if match := re.match(r'\s*#\s*include\s+"([^"]+)"', line):
            near = (path.parent / match[1]).resolve()
            yield near if near.exists() else (ROOT / "cpp" / match[1]).resolve()


def test_mathematics_includes_nothing_else_of_ours():
    math = ROOT / "cpp" / "math"
    files = sorted(math.rglob("*.hpp"))
    assert files
    for path in files:
        for other in includes(path):
            assert other.parent == math, f"{path.name} includes {other}"
        for line in lines(path):
            if match := re.match(r"\s*#\s*include\s+<([^>]+)>", line):
                assert match[1] == "cstdint", f"{path.name} includes <{match[1]}>"


def test_every_function_of_mathematics_is_inlined_everywhere():
    """An out-of-line copy would be one symbol for all instruction sets."""
    header = (ROOT / "cpp" / "math" / "host_device.hpp").read_text()
    assert "__attribute__((always_inline))" in header
    function = re.compile(
        r"^\s*(?:template <[^>]*> )?(?:FANANO_FN )?(?:friend )?[\w:<>]+ \w+\([^;{]*\)(?: const)? {"
    )
    seen = 0
    for path in (ROOT / "cpp" / "math").rglob("*.hpp"):
        for n, line in enumerate(lines(path), 1):
            if function.match(line) and not line.strip().startswith(("if", "for", "return")):
                assert "FANANO_FN" in line, f"{path.name}:{n}: {line.strip()}"
                seen += 1
    assert seen > 10


def test_only_the_bindings_know_python():
    for path in (ROOT / "cpp").rglob("*.[hc]pp"):
        if path.parent.name == "bindings":
            continue
        text = path.read_text()
        assert not re.search(r"#include\s+<(nanobind|Python)", text), path


def test_errors_come_from_their_table():
    """TypeError and ValueError are made by refuse() alone, as the compiler sees to; Python's own
    by the one function that translates them."""
    other = re.compile(r"nb::\w+_error\(|PyErr_(SetString|Format|SetObject)")
    for path in (ROOT / "cpp").rglob("*.[hc]pp"):
        for n, line in enumerate(lines(path), 1):
            if path.name == "module.cpp" and "e.what()" in line:
                continue
            found = [m[0] for m in other.finditer(line) if m[0] != "nb::python_error("]
            assert not found, f"{path.name}:{n}: {line.strip()}"


def test_devices_do_not_include_each_other():
    for path in (ROOT / "cpp" / "cpu").rglob("*.[hc]pp"):
        for other in includes(path):
            assert "bindings" not in other.parts, f"{path} includes {other}"
            assert "no_cuda" not in other.parts, f"{path} includes {other}"
            assert "cuda" not in other.relative_to(ROOT).parts, f"{path} includes {other}"
    for path in (ROOT / "cuda").rglob("*.*h*"):
        for other in includes(path):
            assert "cpu" not in other.relative_to(ROOT).parts, f"{path} includes {other}"


def test_every_ptx_instruction_is_a_function_of_its_own():
    """asm() stands in cuda/ptx alone, so that a kernel reads like its algorithm."""
    found = [p for p in (ROOT / "cuda").rglob("*.cuh") if re.search(r"\basm\b", p.read_text())]
    assert found
    assert {p.parent.name for p in found} == {"ptx"}


# ---- objects -------------------------------------------------------------------------------------


def objects(build_dir):
    """Each object of the library, with its instruction set; None: compiled for any machine."""
    found = []
    for path in build_dir.rglob("*.o"):
        folders = [p.name for p in path.parents if p.name.endswith(".dir")]
        if not folders or {"tests", "benchmarks"} & set(path.relative_to(build_dir).parts):
            continue
        match = ISA_OF.match(folders[0])
        found.append((path, match[1] if match and match[1] != "core" else None))
    assert {isa for _, isa in found} > {None, "scalar"}
    return found


def test_no_symbol_escapes_the_namespace_of_its_instruction_set(build_dir):
    """A weak function outside it would be one for all: the linker might keep the AVX-512 one."""
    for path, isa in objects(build_dir):
        if isa is None:
            continue
        for line in tool("nm", "-C", "--defined-only", str(path)):
            kind, name = line[17:18], line[19:]
            if kind not in "TWVuDBR":  # functions and data that others may see
                continue
            if name.startswith("DW.ref."):  # a pointer to what handles exceptions: no code
                continue
            inside = f"fanano::{isa}::" in name or f"6fanano{len(isa)}{isa}" in name  # mangled
            assert inside, f"{path.name} of {isa} defines {kind} {name}"


def test_kernels_emit_nothing_of_the_standard_library(build_dir):
    for path, isa in objects(build_dir):
        if isa is None:
            continue
        for line in tool("nm", "-C", "--defined-only", str(path)):
            assert not line[19:].startswith("std::"), f"{path.name} of {isa} defines {line[19:]}"


def test_kernels_call_nothing_that_computes(build_dir):
    """exp, log and tanh are our own: another C library's would give other bits."""
    if os.environ.get("FANANO_SANITIZE"):
        pytest.skip("sanitized code calls its run-time library at every step")
    for path, isa in objects(build_dir):
        if isa is None:
            continue
        for line in tool("nm", "-C", "--undefined-only", str(path)):
            name = line.split(" U ")[1]
            kernel = name.startswith((f"fanano::{isa}::", f"fanano::{SHARED.get(isa)}::"))
            # Nor is the table a call by which the other row's is found.
            nothing = ("memcpy", "memmove", "memset", "_GLOBAL_OFFSET_TABLE_")
            allowed = name in nothing or kernel
            assert allowed, f"{path.name} of {isa} calls {name}"


def test_nothing_is_compiled_with_fast_math(build_dir):
    """Nor are products and sums fused where the source does not say so."""
    commands = json.loads((build_dir / "compile_commands.json").read_text())
    ours = [c for c in commands if str(ROOT / "cpp") in c["file"] and "tsan" not in c["command"]]
    assert len(ours) > 20
    for entry in ours:
        assert "-ffp-contract=off" in entry["command"], entry["file"]
        assert not re.search("fast-math|-Ofast|-funsafe|-ffinite", entry["command"]), entry["file"]
    linking = (build_dir / "build.ninja").read_text()
    assert not re.search("fast-math|-Ofast|-funsafe", linking)


def test_what_is_outside_the_table_runs_anywhere(build_dir):
    """No AVX register in any object that runs before, or without, a look at the CPU."""
    checked = 0
    for path, isa in objects(build_dir):
        if isa not in (None, "scalar"):
            continue
        checked += 1
        for line in tool("objdump", "-d", "--no-show-raw-insn", str(path)):
            assert not re.search(r"%[yz]mm|\tv[a-z]+ .*%xmm", line), f"{path.name}: {line}"
    assert checked > 5


def test_a_row_has_of_its_own_what_its_flags_change():
    """What looks at bf16_dot or bf16_tiles, all that they change: directly, or by terms_t. What
    chooses between a row's own and another's (kernels.cpp) every row has."""
    looks = r"\bbf16_(dot|tiles)\b|__A\w+BF16__|FANANO_(PAIRS|TILES)"
    files = {p.stem: p.read_text() for p in (ROOT / "cpp" / "cpu").glob("*.cpp")}
    more = r"|\b(terms_t|with_terms|takes_pairs|tiled|at_once|Ready|careful_strips)\b"
    changed = {n for n, text in files.items() if re.search(looks + more, text)} - {"kernels"}
    assert list(OWN) == ["avx512bf16", "amx"]
    assert changed == OWN["avx512bf16"] == OWN["amx"]
    texts = {p.name: p.read_text() for p in (ROOT / "cpp" / "cpu").rglob("*.hpp")}
    headers = {name for name, text in texts.items() if re.search(looks, text)}
    assert headers == {
        "terms.hpp", "simd.hpp", "avx512.hpp", "scalar.hpp", "emulated.hpp",
        "isa.hpp", "tile.hpp", "special_values.hpp", "key_sums.hpp",
    }  # fmt: skip


def test_each_row_of_the_table_uses_what_it_may(build_dir):
    """The other way round: an AVX2 kernel that has no AVX2 in it was compiled without its flags."""
    wanted = {"avx2": "%ymm", "avx512": "%zmm", "avx512bf16": "%zmm", "amx": "tdpbf16ps"}
    wanted["neon"] = "fmla"
    for path, isa in objects(build_dir):
        if isa in wanted and path.name.startswith(("flash", "decode")):
            text = "\n".join(tool("objdump", "-d", "--no-show-raw-insn", str(path)))
            assert wanted[isa] in text, f"{path.name} of {isa}"


def test_the_module_needs_no_openmp(build_dir):
    """A second OpenMP run-time library in a process costs 20x and hangs after fork."""
    modules = [p for p in build_dir.rglob("_core*.so") if "stage" not in p.parts]
    assert modules
    for path in modules:
        needed = [line for line in tool("objdump", "-p", str(path)) if "NEEDED" in line]
        assert needed
        assert not [n for n in needed if re.search("gomp|iomp|omp5|tbb", n)]
