"""The benchmark: its judge, its contenders, the command and what it writes. Its turns, its memory
and what it refuses: test_bench_timing.py, test_bench_memory.py, test_bench_errors.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")
for package in ("rich", "ml_dtypes"):
    pytest.importorskip(package, reason=f"the benchmark needs {package} (extra: bench)")

import fanano  # noqa: E402
from fanano.cli import errors, main  # noqa: E402
from fanano.cli.bench import (  # noqa: E402
    arrays,
    cases,
    exact,
    options,
    peers,
    timing,
)
from fanano.cli.bench.devices import cpu  # noqa: E402
from fanano.cli.bench.peers.ours import Fanano  # noqa: E402

ROOT = Path(__file__).parents[2]
TINY = {
    "prefill": (cases.square(1, 2, 33, 16), cases.Case(2, 4, 2, 17, 17, 8, causal=True)),
    "decode": (cases.Case(1, 4, 2, 1, 64, 16),),
    "backward": (cases.square(1, 2, 33, 16), cases.Case(2, 4, 2, 17, 17, 8, causal=True)),
    "call": cases.CALL,
    "sizes": tuple(cases.square(1, 2, tokens, dim) for dim in (8, 17) for tokens in (33, 20)),
    "options": (cases.square(1, 8, 40, 16),),
    "memory": (cases.square(1, 1, 64, 16),),
}
# What another process must do before main() to measure these instead.
MAKE_TINY = f"""\
import sys
from fanano.cli import main
from fanano.cli.bench import cases
from fanano.cli.bench.cases import Case
from fanano.cli.bench.devices import cpu
cases.QUICK = {TINY!r}
cpu.last_level_cache = lambda: 2**14
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(cases, "QUICK", TINY)
    monkeypatch.setattr(cpu, "last_level_cache", lambda: 2**14)
    monkeypatch.setattr(cpu, "PEAK_SECONDS", 0.0005)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0005)


def bench(*arguments, tmp_path):
    """The exit code, and what --json wrote."""
    file = tmp_path / "result.json"
    code = main(["bench", "--quick", "--rounds", "2", "--json", str(file), *arguments])
    return code, json.loads(file.read_text())


class Wrong(Fanano):
    """Right but for one element of one row."""

    name = "one element off"
    library = "liar"
    timed = 0

    def prepare(self, case, sets):
        prepared = super().prepare(case, sets)

        def call():
            Wrong.timed += 1
            out = prepared.calls[0]()
            out[-1, -1, -1, -1] *= 1.3
            return out

        return replace(prepared, calls=[call])


class NotANumber(Fanano):
    name = "not a number"
    library = "liar"

    def prepare(self, case, sets):
        return replace(super().prepare(case, sets), to_array=lambda out: out * np.float32("nan"))


class Short(Fanano):
    name = "a head too few"
    library = "liar"

    def prepare(self, case, sets):
        return replace(super().prepare(case, sets), to_array=lambda out: out[:, 1:])


class Unable(Fanano):
    name = "unable"
    library = "liar"

    def prepare(self, case, sets):
        raise peers.CannotRun("knows no such thing")


# ---- the judge -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", [*TINY["prefill"], *TINY["decode"]], ids=str)
def test_fanano_is_within_what_is_allowed(case, dtype):
    (one,) = arrays.inputs(replace(case, dtype=dtype))
    reference = exact.exact(one, is_causal=case.causal)
    out = fanano.attention(*one, is_causal=case.causal)
    verdict = exact.judge(out, reference, one, dtype)
    assert verdict["of_allowed"] < 0.5  # a limit that right results nearly reach would be none


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_row_that_is_a_little_wrong_is_seen(dtype):
    (one,) = arrays.inputs(replace(cases.square(1, 8, 256, 64), dtype=dtype))
    reference = exact.exact(one)
    out = reference.astype(arrays.numpy_dtype(dtype))
    out[0, 3, 100] *= arrays.numpy_dtype(dtype).type(1.1)
    assert exact.judge(out, reference, one, dtype)["of_allowed"] > 1


@pytest.mark.parametrize("name", options.options(TINY["options"][0]))
def test_the_reference_knows_every_option(name):
    (case,) = TINY["options"]
    (one,) = arrays.inputs(case)
    option = options.options(case)[name]
    plain, expected = exact.exact(one), exact.exact(one, **option)
    verdict = exact.judge(fanano.attention(*one, **option), expected, one, case.dtype)
    assert verdict["of_allowed"] <= 1
    assert (np.abs(plain - expected).max() < 1e-3) == (name in ("none", "bool mask, all true")) or (
        name == "window (128, 0)"  # which 40 keys make causal
    )


# ---- contenders ----------------------------------------------------------------------------------


def test_wrong_results_are_told_and_not_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers, "ALL", (Fanano, Wrong, NotANumber, Short, Unable))
    code, result = bench("--group", "prefill", tmp_path=tmp_path)
    assert code == 0  # it is the others who are wrong
    assert Wrong.timed == len(result["rows"])
    for row in result["rows"]:
        found = row["contenders"]
        assert found["fanano"]["seconds"] > 0
        assert set(found["one element off"]) == {"wrong"}
        assert "differs from float64 by" in found["one element off"]["wrong"]
        assert set(found["not a number"]) == {"wrong"}
        assert "has the shape (" in found["a head too few"]["wrong"]
        assert found["unable"] == {"refused": "knows no such thing"}
    out = " ".join(capsys.readouterr().out.split())
    assert "one element off, wrong: differs from float64 by" in out
    assert "unable, refused: knows no such thing" in out


def test_fanano_itself_being_wrong_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(Wrong, "name", "fanano")
    monkeypatch.setattr(peers, "ALL", (Wrong,))
    code, result = bench("--group", "prefill", tmp_path=tmp_path)
    assert code == 1
    assert set(result["rows"][0]["contenders"]["fanano"]) == {"wrong"}


@pytest.mark.parametrize("library", peers.libraries())
def test_contenders_that_are_installed(library, tmp_path):
    """In a process of their own: they keep threads and settings of theirs."""
    needed = [name for peer in peers.ALL if peer.library == library for name in peer.packages]
    for package in needed:
        if not errors.installed(package):
            pytest.skip(f"{package} is not installed: {library} is not measured")
    arguments = ["bench", "--quick", "--rounds", "1", "--json", "result.json", "--peers", library]
    arguments += [part for group in ("prefill", "decode", "call") for part in ("--group", group)]
    arguments.append("--backward")
    code = f"{MAKE_TINY}\nsys.exit(main({arguments!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "result.json").read_text())
    assert library in result["settings"]
    mine = (peer for peer in peers.ALL if peer.library == library)
    names = [peer.name for peer in mine if "cpu" in peer.devices]
    for row in result["rows"]:
        for name in {*names, "fanano"} & set(row["contenders"]):
            outcome = row["contenders"][name]
            if (name, row["group"]) == ("zentorch", "backward"):
                assert "knows no derivative" in outcome["refused"]
            else:
                assert outcome.get("seconds", 0) > 0, (row["shape"], name)
    assert {name for row in result["rows"] for name in row["contenders"]} >= set(names)


# ---- the command ---------------------------------------------------------------------------------


def test_bench(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: bench)")
    before = fanano.get_num_threads()
    plot = tmp_path / "plot.png"
    code, result = bench(
        "--peers", "none", "--threads", "1", "--plot", str(plot), tmp_path=tmp_path
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert fanano.get_num_threads() == before
    assert plot.read_bytes().startswith(b"\x89PNG")

    assert result["threads"] == 1
    assert result["rounds"] == 2
    assert result["versions"]["fanano"] == fanano.__version__
    assert {"date", "cpu", "cpus", "isa", "settings", "quick"} <= set(result)
    assert [row["group"] for row in result["rows"]] == [
        *("prefill", "prefill", "decode", "backward", "backward", "call"),
        *("sizes", "sizes", "sizes", "sizes", "options", "memory"),
    ]
    for row in result["rows"]:
        assert {"shape", "dtype", "causal", "gflop", "kv_bytes", "threads"} <= set(row)
        for outcome in row["contenders"].values():
            if row["group"] == "memory":
                assert set(outcome) <= {"bytes", "refused"}
                continue
            assert {"seconds", "fastest", "slowest", "cpu_seconds", "best"} <= set(outcome)
            assert outcome["of_allowed"] <= 1
    (decode,) = (row for row in result["rows"] if row["group"] == "decode")
    assert decode["kv_sets"] * decode["kv_bytes"] > 4 * decode["cache_bytes"]

    for words in (
        *("Prefill, float32", "Decode, float32", "Call, float32", "Options of", "Memory, float32"),
        *("Head sizes, (1, 8, S, D), float32", "S = 33", "S = 20"),
        *("(1, 2, 33, 16)", "(2, 4/2, 17, 8) causal", "(1, 4/2, 1 over 64, 16)", "1.00x"),
        *("fanano safe", "GFLOP/s", "GB/s", "bool mask (1, 1, S, S)", "ALiBi", "plot.png"),
        "fanano: fanano.set_num_threads(1)",
    ):
        assert words in out
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []


def test_groups_and_dtypes_are_chosen(tmp_path):
    _, result = bench(
        *("--group", "call", "--group", "prefill", "--dtype", "float16", "--peers", "none"),
        *("--dtype", "bfloat16"),
        tmp_path=tmp_path,
    )
    assert [(row["group"], row["dtype"]) for row in result["rows"]] == [
        *[("prefill", "bfloat16")] * 2,
        *[("prefill", "float16")] * 2,
        ("call", "bfloat16"),
        ("call", "float16"),
    ]


def test_float64_is_for_sizes(tmp_path, capsys):
    _, result = bench(*("--group", "sizes", "--dtype", "float64"), tmp_path=tmp_path)
    assert [row["dtype"] for row in result["rows"]] == ["float64"] * 4
    assert [list(row["contenders"]) for row in result["rows"]] == [["fanano"]] * 4
    capsys.readouterr()
    command = ["bench", "--dtype", "float64", "--group", "prefill"]
    assert main([*command, "--dtype", "float32"]) == 2
    expected = "--dtype float64: expected float32, bfloat16, float16"
    assert f"{expected}, or --group sizes beside it" in capsys.readouterr().err
    assert main([*command, "--device", "cuda"]) == 2
    assert "--dtype float64: expected bfloat16, float16\n" in capsys.readouterr().err


def test_options_use_the_threads_asked_for(tmp_path, monkeypatch):
    seen = []
    true = fanano.attention
    monkeypatch.setattr(
        fanano, "attention", lambda *x, **y: seen.append(fanano.get_num_threads()) or true(*x, **y)
    )
    _, result = bench("--group", "options", "--threads", "3", tmp_path=tmp_path)
    assert set(seen) == {3}
    assert list(result["rows"][0]["contenders"]) == list(options.options(TINY["options"][0]))


def test_an_option_that_is_wrong_is_not_timed(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: bench)")
    true = fanano.attention
    monkeypatch.setattr(fanano, "attention", lambda *x, **y: true(*x, **y) * (1 + ("sinks" in y)))
    arguments = ("--group", "options", "--plot", str(tmp_path / "plot.svg"))
    code, result = bench(*arguments, tmp_path=tmp_path)
    assert code == 1
    wrong = [name for name, x in result["rows"][0]["contenders"].items() if "seconds" not in x]
    assert wrong == ["sinks"]


def test_the_full_shapes():
    chosen = cases.chosen(cases.GROUPS, cases.DTYPES, quick=False)
    assert len(chosen) == 3 * (7 + 3 + 7 + 1 + 4 + 1) + 4 * 12
    causal = cases.square(1, 8, 2048, 64, causal=True)
    assert causal.gflop == 4 * 8 * (2048 * 2049 / 2) * 64 / 1e9
    assert cases.DECODE[0].kv_bytes == 2 * 8 * 8192 * 128 * 4


def test_the_readme_is_written_from_the_json(tmp_path):
    _, result = bench("--peers", "none", tmp_path=tmp_path)
    (tmp_path / "README.md").write_text(
        "above\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nbelow"
    )
    (tmp_path / "result.svg").touch()
    location = spec_from_file_location("readme_table", ROOT / "benchmarks" / "readme_table.py")
    script = module_from_spec(location)
    location.loader.exec_module(script)
    file, readme = tmp_path / "result.json", tmp_path / "README.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(file), "--readme", str(readme), "--check"])
        assert script.main() == 1
        patch.setattr(sys, "argv", ["", str(file), "--readme", str(readme)])
        assert script.main() == 0
        text = readme.read_text()
        patch.setattr(sys, "argv", ["", str(file), "--readme", str(readme), "--check"])
        assert script.main() == 0
    assert text.startswith("above\n<!-- benchmark -->\n")
    assert text.endswith("<!-- /benchmark -->\nbelow")
    assert "old" not in text
    assert "](result.svg)" in text
    assert (
        "| dtype | shape | mask | fanano, ms | spread | GFLOP/s | of the peak | fanano safe |"
        in text
    )
    assert "| float32 | (2, 4/2, 17, 8) | causal |" in text
    assert "| D | float32, S = 33 | float32, S = 20 |" in text
    sizes = [row for row in result["rows"] if row["group"] == "sizes"]
    sizes[3]["contenders"]["fanano"] = {"wrong": "by a lot"}
    *_, last = script.size_lines(sizes)
    assert last[0] == "17"
    assert re.fullmatch(r"\d+, [\d.]+ \([\d.]+\)", last[1])
    assert last[2] == "wrong"
    assert text.count(result["date"]) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(file), str(file), "--readme", str(readme)])
        assert script.main() == 0
    assert readme.read_text().count(result["date"]) == 2
