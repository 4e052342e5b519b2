"""The conformance program of single CUDA instructions can fail: what the emulator has recorded is
changed in one place at a time. And what stands in tests/cuda/goldens is of real GPUs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "cuda" / "goldens"


@pytest.fixture(scope="module")
def program():
    path = Path(os.environ.get("FANANO_BUILD_DIR", "")) / "tests" / "cuda" / "cuda_conformance"
    if not path.exists():
        pytest.skip("this build has no CUDA tests: no nvcc, or sanitizers")
    return path


def run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def recorded(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens")
    ran = run(program, "--record", folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = folder.iterdir()
    return path.read_text()


@pytest.fixture
def compared(program, tmp_path):
    """What comparing a text gives: the exit code, and what is said."""

    def compare(text):
        (tmp_path / "gpu.txt").write_text(text)
        ran = run(program, "--compare", tmp_path)
        return ran.returncode, ran.stdout + ran.stderr

    return compare


def section(text, name):
    """Where a case's words begin and end in a text."""
    start = text.index("\n", text.index(f"\ncase {name} ") + 1)
    end = text.find("\ncase ", start)
    return start, end if end > 0 else len(text)


def names(text):
    return re.findall(r"^case (\S+) ", text, re.M)


def test_what_was_recorded_here_is_right(recorded, compared):
    assert recorded.startswith("device the emulator\ndriver 13000\ndate ")
    assert len(names(recorded)) > 20
    code, said = compared(recorded)
    assert code == 0, said
    for name in names(recorded):
        if name.startswith(("mma", "ex2")):
            assert re.search(rf"^  {name}, ulps: \d+ <= 0, at most 0.00 of what", said, re.M), said


def test_every_case_notices_one_wrong_word(recorded, compared):
    for name in names(recorded):
        start, end = section(recorded, name)
        words = recorded[start:end].split()
        # Of a word that nothing is lost in: neither 0 nor in the last places.
        at = next(i for i, w in enumerate(words) if w[1:] not in ("0000000", "f800000"))
        changed = words.copy()
        changed[at] = f"{int(words[at], 16) ^ 0x40000000:08x}"
        code, said = compared(recorded[:start] + "\n" + " ".join(changed) + recorded[end:])
        assert code == 1, name
        assert f"{name}: word {at} of the emulator is {changed[at]}" in said
        assert said.count("of the emulator is") == 1


def test_products_may_be_wrong_in_their_last_place_and_not_in_more(recorded, compared):
    """As much as the sums of tensor cores, and as their powers of two."""
    for name in ("mma_large_and_small_bfloat16", "ex2_unit"):
        start, end = section(recorded, name)
        words = recorded[start:end].split()
        at = next(i for i, w in enumerate(words) if w[:3] == "3f8")
        for ulps, expected in ((1, 0), (4096, 1)):
            changed = words.copy()
            changed[at] = f"{int(words[at], 16) + ulps:08x}"
            code, said = compared(recorded[:start] + "\n" + " ".join(changed) + recorded[end:])
            assert code == expected, said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: re.sub(r"(case wide )\w", r"\1g", text), "wide: recorded of other inputs"),
        (lambda text: text.replace("case wide ", "case broad "), "broad: recorded, and no case"),
        (lambda text: text[: text.rindex(" ")] + "\n", "511 words of the emulator, expected 512"),
        (lambda text: text.replace("device the emulator\n", ""), "holds no recorded results"),
        (lambda text: "", "holds no recorded results"),
    ],
)
def test_a_file_that_is_not_what_this_program_records(recorded, compared, change, words):
    _, end = section(recorded, "mma_layout_float16")
    code, said = compared(change(recorded[:end] + "\n"))
    assert code != 0
    assert words in said


def test_a_case_that_is_not_recorded_yet_is_said(recorded, compared):
    start, end = section(recorded, "wide")
    begin = recorded.rindex("\ncase ", 0, start)
    code, said = compared(recorded[:begin] + recorded[end:])
    assert code == 0
    assert "wide: not recorded" in said


def test_a_wrong_golden_among_right_ones(program, recorded, tmp_path):
    """Whether it is the first or the last of them."""
    start, _ = section(recorded, "wide")
    wrong = (
        recorded[:start]
        + "\n"
        + ("0" if recorded[start + 1] != "0" else "1")
        + recorded[start + 2 :]
    )
    for names in (("a", "b"), ("b", "a")):
        for name, text in zip(names, (recorded, wrong), strict=True):
            (tmp_path / f"{name}.txt").write_text(text)
        ran = run(program, "--compare", tmp_path)
        assert ran.returncode == 1
        assert "wide: word 0 of the emulator is" in ran.stdout
        assert ran.stdout.count("recorded on the emulator") == 2


def test_without_goldens_it_says_so(program, tmp_path):
    """By the words that make ctest skip it."""
    (tmp_path / "empty").mkdir()
    (skip,) = re.findall(
        r'cuda/goldens PROPERTIES SKIP_REGULAR_EXPRESSION "(.*)"\)',
        (ROOT / "tests" / "cuda" / "CMakeLists.txt").read_text(),
    )
    for folder in ("none", "empty"):
        ran = run(program, "--compare", tmp_path / folder)
        assert ran.returncode == 0
        assert f"{skip} no GPU has recorded them" in ran.stdout


def test_wrong_arguments(program, tmp_path):
    for arguments in (["--record"], ["--compare"], ["folder"], ["--replay", tmp_path]):
        assert run(program, *arguments).returncode == 2


def test_every_function_of_ptx_has_a_case():
    cases = "".join(p.read_text() for p in (ROOT / "tests" / "cuda").glob("conformance_*.cpp"))
    functions = [
        name
        for path in (ROOT / "cuda" / "ptx").glob("*.cuh")
        for name in re.findall(r"^(?:template .*)?__device__ .*? (\w+)\(", path.read_text(), re.M)
    ]
    assert len(functions) > 10
    assert [f for f in functions if not re.search(rf"\bptx::{f}\b", cases)] == []


def test_committed_goldens_are_of_gpus():
    paths = list(GOLDENS.glob("*.txt"))
    if not paths:
        pytest.skip("no GPU has recorded any")
    for path in paths:
        device, driver, date = path.read_text().splitlines()[:3]
        assert device.startswith("device ")
        assert "emulator" not in device
        assert int(driver.removeprefix("driver ")) > 0
        assert re.fullmatch(r"date \d{4}-\d\d-\d\d", date)
