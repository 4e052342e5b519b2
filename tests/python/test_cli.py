"""The command line: each command as a process and in one, and what it says to mistakes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

import fanano
from fanano.cli import errors, info, main

# What info and explain must do without: everything that is not the standard library or fanano.
BLOCK = """\
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "rich", "torch", "matplotlib", "ml_dtypes"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def fanano_command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "fanano", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


def without_libraries(*arguments):
    code = f"{BLOCK}\nfrom fanano.cli import main\nsys.exit(main({list(arguments)!r}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_version():
    done = fanano_command("--version")
    assert (done.returncode, done.stdout) == (0, f"fanano {fanano.__version__}\n")


@pytest.mark.parametrize(
    "command", [[], ["info"], ["explain"], ["demo"], ["bench"], ["profile"], ["run"]]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "usage: fanano" in out
    assert "examples:" in out or command == ["info"]


# ---- info ----------------------------------------------------------------------------------------


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"fanano {fanano.__version__}" in out
    for kernel in (kernel for kernel in fanano.kernels() if kernel.device == "cpu"):
        (line,) = (line for line in out.splitlines() if line[3:].split(" ")[0] == kernel.isa)
        assert ("runs here" in line) == kernel.runnable
        assert ("chosen" in line) == kernel.chosen == line.startswith(" *")
        assert kernel.why_not in line
    assert f"Threads  {fanano.get_num_threads()}\n" in out
    assert "\nCUDA     " in out  # test_cuda_build.py


def test_info_says_whose_the_attention_of_torch_is(capsys):
    assert main(["info"]) == 0
    assert "Attention of torch  its own: fanano.torch.install()" in capsys.readouterr().out
    pytest.importorskip("torch", reason="installs fanano under torch's attention")
    from fanano.torch import installed

    with installed():
        assert main(["info"]) == 0
    line = "Attention of torch  fanano's, by fanano.torch.install(): aten::_scaled_dot_product_"
    assert line in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "Attention of torch  its own" in capsys.readouterr().out


def test_info_says_which_adapters_there_can_be(monkeypatch, capsys):
    monkeypatch.setattr(errors, "find_spec", lambda name: name in ("numpy", "jax") or None)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for line in (
        *("fanano.adapters.numpy  numpy is installed", "fanano.adapters.jax    jax is installed"),
        *("fanano.torch           torch is not installed", "fanano.adapters.dlpack"),
    ):
        assert line in out


def test_info_loads_adapters(monkeypatch, capsys):
    pytest.importorskip("numpy", reason="loads the adapter of NumPy")
    adapters = {"fanano.adapters.numpy": "numpy", "fanano.adapters.dlpack": "sys", "no.such": "sys"}
    monkeypatch.setattr(info, "ADAPTERS", adapters | {"fanano.no": "no_such_library"})
    assert main(["info", "--load"]) == 0
    out = capsys.readouterr().out
    assert out.count("can be loaded") == 2
    assert "no.such                cannot be loaded: ModuleNotFoundError: No module" in out
    assert "fanano.no              no_such_library is not installed" in out


def test_info_names_the_forced_isa():
    done = fanano_command("info", FANANO_ISA="scalar")
    assert done.returncode == 0, done.stderr
    assert "Instruction sets (FANANO_ISA=scalar)" in done.stdout
    assert " * scalar" in done.stdout


@pytest.mark.parametrize("variable", ["FANANO_ISA", "FANANO_NUM_THREADS"])
@pytest.mark.parametrize("command", ["info", "explain --query 4,4", "demo", "bench"])
def test_a_mistake_in_the_environment_ends_with_2(command, variable):
    done = fanano_command(*command.split(), **{variable: "some"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"fanano: error: {variable}=some")


def test_info_lists_libraries_by_their_metadata(monkeypatch, capsys):
    def version(name):
        if name != "jax":
            raise PackageNotFoundError
        return "1.2.3"

    monkeypatch.setattr(info, "version", version)
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[lines.index("Array libraries found") + 1 :]] == [
        ["jax", "1.2.3"]
    ]


def test_info_and_explain_need_no_other_package():
    done = without_libraries("info")
    assert (done.returncode, done.stderr) == (0, "")
    done = without_libraries("explain", "--query", "1,8,2048,64", "--dtype", "bfloat16")
    assert (done.returncode, done.stderr) == (0, "")


def test_info_imports_no_array_library():
    code = (
        "import sys; from fanano.cli import main; main(['info'])\n"
        "assert not {'numpy', 'torch', 'rich'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).returncode == 0


def test_output_into_a_closed_pipe_leaves_no_traceback():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "fanano", "info"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


# ---- explain -------------------------------------------------------------------------------------


def explained(capsys, arguments):
    assert main(["explain", *arguments.split()]) == 0
    return capsys.readouterr().out


def test_explain_is_the_plan_of_the_same_arrays(capsys):
    np = pytest.importorskip("numpy", reason="compares with the plan of NumPy arrays")
    query, key = np.empty((2, 8, 300, 64), np.float16), np.empty((2, 4, 500, 64), np.float16)
    value = np.empty((2, 4, 500, 32), np.float16)
    options = {"is_causal": True, "algorithm": "safe", "out_dtype": "float32"}
    expected = fanano.explain(query, key, value, **options)
    out = explained(
        capsys,
        "--query 2,8,300,64 --kv-heads 4 --keys 500 --value-dim 32 --dtype float16 "
        "--causal --algorithm safe --out-dtype float32",
    )
    assert out == f"{expected}\n"
    query, value = query.astype(np.float32), value.astype(np.float32)
    expected = fanano.explain(query, key.astype(np.float32), value, backward=True)
    given = "--query 2,8,300,64 --kv-heads 4 --keys 500 --value-dim 32 --backward"
    assert explained(capsys, given) == f"{expected}\n"


def test_explain_knows_the_layouts(capsys):
    bhsd = explained(capsys, "--query 2,8,300,64 --kv-heads 4 --keys 500")
    bshd = explained(capsys, "--query 2,300,8,64 --kv-heads 4 --keys 500 --layout bshd")
    assert bhsd == bshd
    assert "heads 8 over 4" in bhsd
    assert "queries 300, keys 500" in bhsd


def test_explain_takes_two_and_three_axes(capsys):
    assert "heads 1 over 1" in explained(capsys, "--query 300,64 --layout bshd")
    assert "heads 8 over 2" in explained(capsys, "--query 8,300,64 --kv-heads 2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--query 1,8,64,64 --kv-heads 3", "number of query heads must be a multiple"),
        ("--query 1,8,64,64 --dtype int8", '"int8"'),
        ("--query 1,8,64,64 --algorithm fast", '"fast"'),
        ("--query 1,8,64,64 --layout hbsd", '"hbsd"'),
        ("--query 1,8,64,64 --backward --algorithm safe", "no backward pass"),
        ("--query 1,8,64,0", "dim"),
        ("--query 1,8,64,64 --out-dtype float64", "out_dtype"),
        ("--query 1,8,64,64 --keys=-1", "-1"),
        ("--query 64,64 --kv-heads 2", "--kv-heads: a query of 2 axes (S,D) has no heads"),
    ],
)
def test_explain_mistakes(arguments, words, capsys):
    assert main(["explain", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("fanano: error: ")
    assert words in err
    assert out == ""


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["info", "--fast"], "unrecognized arguments: --fast"),
        (["explain"], "required: --query"),
        (["explain", "--query", "1,8,x"], "'1,8,x' is not a shape such as 1,8,2048,64"),
        (["explain", "--query", "8"], "'8' has 1 axes; expected 2 to 4"),
        (["explain", "--query", "1,2,3,4,5"], "has 5 axes; expected 2 to 4"),
        (["explain", "--query", "2,2", "--keys", "many"], "invalid int value: 'many'"),
        (["demo", "--top", "x"], "invalid int value: 'x'"),
        (["bench", "--group", "all"], "invalid choice: 'all'"),
    ],
)
def test_mistakes_end_with_2(arguments, words):
    done = fanano_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_ends_with_1(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupted)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "fanano: interrupted\n"
