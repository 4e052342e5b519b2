"""`fanano bench --backward`: its judge of gradients, its contenders, what it counts and writes."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")
for package in ("rich", "ml_dtypes"):
    pytest.importorskip(package, reason=f"the benchmark needs {package} (extra: bench)")

import oracle_gradients  # noqa: E402

import fanano  # noqa: E402
from fanano.cli import main  # noqa: E402
from fanano.cli.bench import arrays, cases, cells, gradients, peers, timing  # noqa: E402
from fanano.cli.bench.devices import cpu  # noqa: E402
from fanano.cli.bench.peers.ours import Fanano  # noqa: E402

CASES = (
    cases.square(1, 2, 33, 16),
    cases.Case(2, 4, 2, 17, 17, 8, causal=True),
    cases.Case(1, 4, 2, 7, 19, 8, causal=True),
    cases.Case(1, 2, 2, 19, 7, 8),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(cases, "QUICK", {"prefill": CASES[:1], "backward": CASES[:2]})
    monkeypatch.setattr(cpu, "PEAK_SECONDS", 0.0005)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0005)


def bench(*arguments, tmp_path):
    """The exit code, and what --json wrote."""
    file = tmp_path / "result.json"
    code = main(["bench", "--quick", "--rounds", "2", "--json", str(file), *arguments])
    return code, json.loads(file.read_text())


def ours(case):
    """The arrays of a case, fanano's gradients, the exact ones."""
    (one,), dout = arrays.inputs(case), arrays.upstream(case)
    out, lse = fanano.attention(*one, is_causal=case.causal, return_lse=True)
    found = fanano.attention_backward(dout, *one, out, lse, is_causal=case.causal)[:3]
    return found, gradients.exact_gradients(one, dout, is_causal=case.causal)


# ---- the judge -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_is_the_oracle(case):
    (one,), dout = arrays.inputs(case), arrays.upstream(case)
    exact = gradients.exact_gradients(one, dout, is_causal=case.causal)
    right = oracle_gradients.gradients(*one, dout, is_causal=case.causal)
    for name, found in zip(gradients.NAMES, exact.gradients, strict=True):
        expected = getattr(right, name).astype(np.float64)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_judge(case, dtype):
    """What fanano gives is well within; a tenth off in one large element is not."""
    case = replace(case, dtype=dtype)
    found, exact = ours(case)
    verdict = gradients.judge_gradients(found, exact, dtype)
    assert 0 < verdict["of_allowed"] < 0.5
    assert verdict["error"] < 0.1
    for index in range(3):
        off = [x.copy() for x in found]
        at = np.unravel_index(np.abs(exact.gradients[index]).argmax(), off[index].shape)
        off[index][at] *= off[index].dtype.type(1.1)
        assert gradients.judge_gradients(off, exact, dtype)["of_allowed"] > 1
        off[index][at] = np.nan
        assert not gradients.judge_gradients(off, exact, dtype)["of_allowed"] <= 1


def test_a_mask_that_is_forgotten_is_seen():
    case = replace(cases.square(1, 1, 64, 16), dtype="bfloat16")
    found, _ = ours(case)
    (one,), dout = arrays.inputs(case), arrays.upstream(case)
    causal = gradients.exact_gradients(one, dout, is_causal=True)
    assert gradients.judge_gradients(found, causal, "bfloat16")["of_allowed"] > 10


# ---- contenders ----------------------------------------------------------------------------------


class Off(Fanano):
    """Right but for one element of dk."""

    name = "one element off"
    library = "liar"
    timed = 0

    def backward(self, case, one, dout):
        prepared = super().backward(case, one, dout)

        def call():
            Off.timed += 1
            dq, dk, dv = prepared.to_array(prepared.calls[0]())
            dk = dk.copy()
            dk.flat[np.abs(dk).argmax()] *= 1.3
            return dq, dk, dv

        return replace(prepared, calls=[call], to_array=lambda found: found)


class Short(Fanano):
    name = "a head too few"
    library = "liar"

    def backward(self, case, one, dout):
        prepared = super().backward(case, one, dout)
        return replace(prepared, to_array=lambda found: (found.dq, found.dk[:, 1:], found.dv))


class Unable(Fanano):
    name = "unable"
    library = "liar"

    def backward(self, case, one, dout):
        raise peers.CannotRun("knows no derivative")


def test_wrong_gradients_are_told_and_not_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "ALL", (Fanano, Off, Short, Unable))
    code, result = bench("--backward", tmp_path=tmp_path)
    assert code == 0  # it is the others who are wrong
    assert Off.timed == len(result["rows"]) == 2
    for row in result["rows"]:
        found = row["contenders"]
        assert found["fanano"]["seconds"] > 0
        assert "differs from float64 by" in found["one element off"]["wrong"]
        assert found["a head too few"]["wrong"].startswith("dk has the shape (")
        assert found["unable"] == {"refused": "knows no derivative"}


def test_only_those_with_gradients_take_part():
    mine = [peer for peer in peers.ALL if "backward" in peer.groups]
    names = {peer.name for peer in mine if "cpu" in peer.devices}
    assert names == {*("fanano", "fanano on torch", "torch flash", "torch math", "zentorch", "jax")}


# ---- the command ---------------------------------------------------------------------------------


def test_backward(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="--plot needs matplotlib (extra: bench)")
    plot = tmp_path / "plot.svg"
    arguments = "--backward", "--peers", "none", "--plot", str(plot)
    code, result = bench(*arguments, tmp_path=tmp_path)
    out = capsys.readouterr().out
    assert code == 0
    assert {row["group"] for row in result["rows"]} == {"backward"}
    assert plot.read_text().startswith("<?xml")
    for row, case in zip(result["rows"], CASES[:2], strict=True):
        assert row["gflop"] == 2.5 * case.gflop
        (outcome,) = row["contenders"].values()
        assert outcome["of_allowed"] <= 1
        rate = row["gflop"] / outcome["seconds"]
        assert cells.CELLS["cpu"]["backward"](row, outcome)[3] == f"{rate:.0f}"
    words = " ".join(out.split())
    for expected in (
        *("Backward, float32", "(1, 2, 33, 16)", "(2, 4/2, 17, 8) causal", "GFLOP/s"),
        "its flops are counted as 2.5 times those of the forward pass",
    ):
        assert expected in words


def test_backward_beside_other_groups(tmp_path):
    arguments = "--backward", "--group", "prefill", "--peers", "none", "--dtype", "float16"
    _, result = bench(*arguments, tmp_path=tmp_path)
    assert [row["group"] for row in result["rows"]] == ["prefill", "backward", "backward"]


def test_the_readme_says_how_it_was_counted(tmp_path):
    _, result = bench("--backward", "--peers", "none", tmp_path=tmp_path)
    file = Path(__file__).parents[2] / "benchmarks" / "readme_table.py"
    lines = list(runpy.run_path(str(file))["tables"](result, None))
    (title,) = (line for line in lines if line.startswith("Backward"))
    assert "the flops counted as 2.5 times those of the forward pass" in title
    head = "| dtype | shape | mask | fanano, ms | spread | GFLOP/s | of the peak |"
    assert head in lines
    assert [line.split(" | ")[:3] for line in lines[lines.index(head) + 2 :]] == [
        ["| float32", "(1, 2, 33, 16)", "full"],
        ["| float32", "(2, 4/2, 17, 8)", "causal"],
    ]


def test_full_shapes():
    shapes = {(str(case), case.causal) for case in cases.BACKWARD}
    assert {(f"(1, 8, 2048, {d})", causal) for d in (64, 128) for causal in (0, 1)} < shapes
    assert {("(1, 32/8, 512, 128)", True), ("(4, 12, 128, 32)", False)} < shapes
    assert cases.square(1, 8, 2048, 64).backward_gflop == 10 * 8 * 2048**2 * 64 / 1e9
