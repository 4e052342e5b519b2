"""What `fanano bench` refuses, before the minutes of measuring, and what it counts as a failure."""

import pytest

pytest.importorskip("numpy", reason="the benchmark runs on NumPy (extra: bench)")
for package in ("rich", "ml_dtypes"):
    pytest.importorskip(package, reason=f"the benchmark needs {package} (extra: bench)")

from fanano.cli import errors, main  # noqa: E402
from fanano.cli.bench import report  # noqa: E402


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--peers", "tensorflow"], 2, "--peers tensorflow: expected none, or some of torch, jax,"),
        (["--threads", "0"], 2, "--threads is 0; expected 1 to 4096"),
        (["--threads", "4097"], 2, "--threads is 4097; expected 1 to 4096"),
        (["--rounds", "-1"], 2, "--rounds is -1; expected 1 or more"),
        (["--json", "result.txt"], 2, "--json result.txt: expected a name in .json"),
        (["--json", "no/such/result.json"], 1, "--json no/such/result.json: no such folder"),
        (["--json", "folder.json"], 1, "--json folder.json: is a folder"),
        (["--plot", "plot.gif"], 2, "--plot plot.gif: expected a name in .png, .svg or .pdf"),
    ],
)
def test_mistakes(arguments, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    assert main(["bench", "--quick", *arguments]) == code
    out, err = capsys.readouterr()
    assert err.startswith("fanano: error: ")
    assert words in err
    assert out == ""


@pytest.mark.parametrize(
    ("missing", "arguments", "words"),
    [
        ("rich", [], "fanano bench needs rich; install with: pip install rich"),
        ("ml_dtypes", ["--dtype", "bfloat16"], "install with: pip install ml_dtypes"),
        ("matplotlib", ["--plot", "plot.png"], "install with: pip install matplotlib"),
        (
            "jax",
            ["--peers", "jax"],
            "fanano bench --peers jax needs jax; install with: pip install",
        ),
    ],
)
def test_what_is_missing_is_said_with_the_line_that_installs_it(
    missing, arguments, words, monkeypatch, capsys
):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == missing else 1)
    assert main(["bench", "--quick", *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "name", "outcome", "failed"),
    [
        ("prefill", "fanano", {"seconds": 1.0}, False),
        ("prefill", "fanano", {"wrong": "by a lot"}, True),
        ("prefill", "fanano safe", {"refused": "no reason"}, True),
        ("prefill", "torch flash", {"wrong": "by a lot"}, False),
        ("options", "softcap 20", {"wrong": "by a lot"}, True),
        ("memory", "fanano", {"refused": "peaks are measured on Linux only"}, False),
    ],
)
def test_what_counts_as_a_failure_of_fanano(group, name, outcome, failed):
    result = {"rows": [{"group": group, "contenders": {name: outcome}}]}
    assert report.ours_failed(result) is failed
