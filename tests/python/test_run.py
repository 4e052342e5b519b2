"""`fanano run`: what python itself does with a script or a module, but for torch's attention."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile

import pytest

from fanano.cli import errors, main

LINE = re.compile(r"fanano: took over .*\n")


def python(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        **options,
    )


def same(*arguments, cwd):
    """Runs it by python and by fanano run: the same code, outputs and errors. Returns fanano's."""
    plain = python(*arguments, cwd=cwd)
    ours = python("-m", "fanano", "run", *arguments, cwd=cwd)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert LINE.sub("", ours.stderr) == plain.stderr
    return ours


@pytest.fixture(autouse=True)
def torch_is_found(monkeypatch):
    """These scripts import none, but it must be there."""
    if not errors.installed("torch"):
        pytest.skip("fanano run needs torch")


# ---- a script is what it is to python ------------------------------------------------------------

SAYS_ALL = """\
import sys, os, pickle, atexit, threading, time
from pathlib import Path

class Thing:
    pass

def name(): return __name__

value: int = 1
print(sys.argv, __name__, __file__, __package__, __spec__ and __spec__.name, __doc__)
print(sorted(globals()), __annotations__, type(__loader__).__name__, __cached__)
print(sys.path[0], sys.modules["__main__"].__dict__ is globals(), "torch" in sys.modules)
print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)
atexit.register(lambda: print("at exit", pickle.dumps(Thing()) != b"", name()))
threading.Thread(target=lambda: (time.sleep(0.1), print("later", Thing.__module__, name()))).start()
sys.stderr.write("on standard error\\n")
"""


def test_what_a_script_sees(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "says.py").write_text(f'"""Doc."""\n{SAYS_ALL}')
    link = tmp_path / "link.py"
    link.symlink_to(folder / "says.py")
    for arguments in (
        ["a folder/says.py", "-x", "--help", "-m", "--", "more", ""],
        [str(folder / "says.py")],
        ["link.py", "--version"],
    ):
        ours = same(*arguments, cwd=tmp_path)
        assert ours.returncode == 0
        assert "at exit True __main__" in ours.stdout
        assert "later __main__ __main__" in ours.stdout
        assert ours.stderr == "on standard error\n"  # no torch, nothing to say


def test_what_a_module_sees(tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("x = 3")
    (package / "__main__.py").write_text(f"from .helper import x\nprint(x)\n{SAYS_ALL}")
    (package / "part.py").write_text(f"from . import helper\n{SAYS_ALL}")
    for arguments in (["pack", "-x", "--help"], ["pack.part", "a", "-m"]):
        assert same("-m", *arguments, cwd=tmp_path).returncode == 0


def test_a_folder_and_an_archive(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__main__.py").write_text(f"import near\n{SAYS_ALL}")
    (folder / "near.py").write_text("")
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    for program in "app", "app.zip":
        assert same(program, "-x", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys\nsys.exit(7)", 7),
        ("import sys\nsys.exit('in words')", 1),
        ("import sys\nsys.exit()", 0),
        ("raise SystemExit(True)", 1),
        ("import os\nos._exit(3)", 3),
        ("def f():\n    g()\ndef g():\n    1 / 0\nf()", 1),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise KeyError('x')", 1),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e", 1),
        ("def broken(:\n    pass", 1),
        ("from __future__ import nothing", 1),
        ("import not_there_at_all", 1),
        ("import near", 1),
        ("raise BrokenPipeError('of the script')", 1),
        ("from fanano.cli.errors import CommandError\nraise CommandError('of the script')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import sys\nsys.excepthook = lambda *x: print('mine', x)\n1 / 0", 1),
        ("import threading\nt = threading.Thread(target=lambda: 1 / 0, name='t')\nt.start()", 0),
        ("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])", 1),
        ("def f(x: int): pass\nprint(f.__annotations__)", 0),  # no __future__ of ours
    ],
)
def test_how_a_script_ends(text, code, tmp_path):
    (tmp_path / "near.py").write_text("def f():\n    raise RuntimeError('near')\nf()")
    (tmp_path / "ends.py").write_text(text)
    if "mine" in text:  # prints the traceback's address
        text = text.replace("x)\n", "x[0], x[2].tb_lineno, x[2].tb_next)\n")
        (tmp_path / "ends.py").write_text(text)
    assert same("ends.py", cwd=tmp_path).returncode == code


def test_a_module_that_raises(tmp_path):
    (tmp_path / "ends.py").write_text("def f():\n    1 / 0\nf()")
    plain = python("-m", "ends", cwd=tmp_path)
    ours = python("-m", "fanano", "run", "-m", "ends", cwd=tmp_path)
    # Python's own has two frames of runpy above it.
    kept = [line for line in plain.stderr.splitlines() if "frozen runpy" not in line]
    assert (ours.returncode, ours.stderr.splitlines()) == (1, kept)


# ---- torch's attention ---------------------------------------------------------------------------

ATTENDS = """\
import sys
assert "torch" not in sys.modules  # what a script sets before importing it still counts
import torch
from torch.nn.functional import scaled_dot_product_attention
print(torch.__spec__.loader is torch.__loader__, type(torch.__loader__).__name__)
q = torch.arange(2 * 3 * 5 * 8.0).reshape(2, 3, 5, 8).sin().requires_grad_()
k = torch.tensor([float("nan")]).expand(2, 3, 5, 8).clone()
k[:, :, :2] = 1
mask = torch.tensor([True, True, False, False, False])
out = scaled_dot_product_attention(q, k, k, attn_mask=mask[None, None, None])
out.sum().backward()
print(bool(out.isfinite().all()))
with torch.no_grad():
    for _ in range(3):
        scaled_dot_product_attention(q, k, k)
    scaled_dot_product_attention(q[..., :0], k[..., :0], k)
"""


def test_fanano_is_under_the_attention_of_torch(tmp_path):
    pytest.importorskip("torch", reason="looks at what torch's attention is")
    (tmp_path / "attends.py").write_text(ATTENDS)
    plain = python("attends.py", cwd=tmp_path)
    assert plain.stdout == "True SourceFileLoader\nFalse\n", plain.stderr
    ours = python("-m", "fanano", "run", "attends.py", cwd=tmp_path)
    assert (ours.returncode, ours.stdout) == (0, "True SourceFileLoader\nTrue\n"), ours.stderr
    assert ours.stderr == (
        "fanano: took over 4 attention call(s) of torch's flash kernel and 1 of its backward\n"
    )


def test_the_line_is_the_last_and_comes_once(tmp_path):
    pytest.importorskip("torch", reason="looks at what torch's attention is")
    (tmp_path / "forks.py").write_text(
        "import atexit, os, sys\nimport torch\n"
        "if os.fork() == 0:\n    sys.exit()\nos.wait()\n"
        "atexit.register(lambda: torch.nn.functional.scaled_dot_product_attention("
        "*torch.ones(3, 1, 1, 2, 4)))\n1 / 0"
    )
    ours = python("-m", "fanano", "run", "forks.py", cwd=tmp_path)
    assert ours.returncode == 1
    assert ours.stderr.splitlines()[0].startswith("Traceback")
    assert LINE.findall(ours.stderr) == [ours.stderr.splitlines(keepends=True)[-1]]
    assert "took over 1 attention call(s)" in ours.stderr


def test_the_line_says_why_nothing_was_taken_over(tmp_path):
    pytest.importorskip("torch", reason="looks at what torch's attention is")
    (tmp_path / "drops.py").write_text(
        "import torch\ntorch.nn.functional.scaled_dot_product_attention("
        "*torch.ones(3, 1, 1, 2, 4), dropout_p=0.5)\n"
    )
    ours = python("-m", "fanano", "run", "drops.py", cwd=tmp_path)
    assert ours.returncode == 0
    assert ours.stderr == (
        "fanano: took over 0 attention call(s) of torch's flash kernel, which got none: not with "
        "dropout, need_weights=True, or modules' fused path\n"
    )


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "expected a script, or -m and a module"),
        (["-m"], 2, "expected a script, or -m and a module"),
        (["no/such.py"], 2, "can't open file"),
        (["-m", "no_such_module"], 1, "No module named no_such_module"),
        (["-m", "no_such.module"], 1, "No module named no_such.module"),
        (["-m", "email"], 1, "No module named email.__main__"),
        (["."], 1, "can't find '__main__' module in '.'"),
    ],
)
def test_mistakes(arguments, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sys.path.copy(), sys.meta_path.copy()
    assert main(["run", *arguments]) == code
    assert words in capsys.readouterr().err
    assert (sys.path, sys.meta_path) == before


def test_without_torch(monkeypatch, capsys):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert main(["run", os.devnull]) == 1
    assert "fanano run needs torch; install with: pip install torch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "looks",
    [
        "import importlib.util; assert importlib.util.find_spec('torch').loader",
        "import importlib.metadata, importlib.util as u; [u.find_spec('torch') for _ in range(3)]",
    ],
)
def test_who_looks_before_importing(looks, tmp_path):
    """As transformers does: it is the import that counts."""
    (tmp_path / "script.py").write_text(
        f"{looks}\nimport torch\nimport fanano.torch\nprint(fanano.torch.is_installed())\n"
    )
    done = python("-m", "fanano", "run", "script.py", cwd=tmp_path)
    assert done.stdout == "True\n"
    assert LINE.fullmatch(done.stderr)
