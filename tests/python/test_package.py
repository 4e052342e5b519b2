"""The package: what importing it does, what it exports, and that it says so in one place only."""

import doctest
import importlib.metadata
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fanano

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fanano.__file__).parent


def python(program, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


def test_import_imports_no_array_library():
    before = set(python("import sys; print(*sys.modules)").split())
    after = set(python("import fanano, sys; print(*sys.modules)").split())
    imported = {name.partition(".")[0] for name in after - before}
    foreign = imported - set(sys.stdlib_module_names)
    assert {"fanano"} <= foreign <= {"fanano", "nanobind_backend", "_nb_backend_v1"}


def test_an_adapter_is_loaded_for_its_own_arrays_alone():
    program = """
    import sys, numpy, fanano
    x = numpy.ones((4, 8), "float32")
    fanano.attention(x, x, x)
    mine = [f"fanano.adapters.{name}" for name in ("numpy", "torch", "jax", "cupy", "dlpack")]
    theirs = ["torch", "jax", "cupy", "ml_dtypes", "numpy.ma"]
    print(*(name for name in mine + theirs if name in sys.modules))
    """
    assert python(program).split() == ["fanano.adapters.numpy"]


def test_import_takes_less_than_a_tenth_of_a_second():
    program = """
    import time, numpy
    start = time.perf_counter()
    import fanano
    print(time.perf_counter() - start)
    """
    assert min(float(python(program)) for _ in range(3)) < 0.1


def test_usable_without_any_array_library():
    program = """
    import fanano
    print(len(fanano.kernels()), fanano.build_info()["version"], fanano.SoftmaxState().lse)
    try:
        fanano.attention([1.0], [1.0], [1.0])
    except TypeError as error:
        print(error)
    """
    assert "query must be an array" in python(program)


def test_nothing_is_said_at_exit():
    program = """
    import ctypes, fanano
    kept = fanano.kernels()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))  # alive to the very end
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_version_stands_in_one_place():
    [version] = re.findall(
        r"project\(fanano VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()
    )
    assert fanano.__version__ == fanano.build_info()["version"] == version
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    for file in [ROOT / "pyproject.toml", *PACKAGE.rglob("*.py"), *(ROOT / "cpp").rglob("*.?pp")]:
        assert f'"{version}"' not in file.read_text(), file


def test_one_wheel_serves_every_python_that_is_admitted():
    project = (ROOT / "pyproject.toml").read_text()
    [oldest] = re.findall(r'^requires-python = ">=3\.(\d+)"$', project, re.MULTILINE)
    for line in (
        f'wheel.py-api = "cp3{oldest}"',  # the stable ABI that it is compiled for
        f'build = "cp3{oldest}-*"',  # cibuildwheel: this one and no other
        f'target-version = "py3{oldest}"',
    ):
        assert line in project.splitlines()
    bindings = (ROOT / "cpp/bindings/CMakeLists.txt").read_text()
    assert f"find_package(Python 3.{oldest} REQUIRED" in bindings


def test_installed_version():
    try:
        installed = importlib.metadata.version("fanano")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("fanano runs from a build tree, not installed")
    assert installed == fanano.__version__


def test_typed():
    assert (PACKAGE / "py.typed").exists()


def test_committed_stub_is_what_the_module_exports(tmp_path):
    made = tmp_path / "_core.pyi"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "fanano._core", "-o", made]
    subprocess.run(command, check=True, timeout=120)
    committed = ROOT / "src/fanano/_core.pyi"
    assert committed.read_text() == made.read_text(), (
        f"{committed} is out of date: python -m nanobind.stubgen -m fanano._core -o {committed}"
    )


@pytest.mark.parametrize("name", sorted(set(fanano.__all__) - {"__version__"}))
def test_public_names_are_documented(name):
    thing = getattr(fanano, name)
    assert inspect.getdoc(thing), name
    if inspect.isclass(thing):
        for member in (m for m in vars(thing) if not m.startswith("_")):
            assert inspect.getdoc(getattr(thing, member)), f"{name}.{member}"


def test_nothing_else_is_public():
    public = {name for name in vars(fanano) if not name.startswith("_")}
    modules = {"adapters", "cli", "jax", "torch"}  # submodules appear once they are imported
    assert public - modules == set(fanano.__all__) - {"__version__"}


@pytest.mark.parametrize("function", [fanano.attention, fanano.attention_backward])
def test_every_argument_of_attention_is_documented(function):
    documented = inspect.getdoc(function)
    for name in inspect.signature(function).parameters:
        assert re.search(rf"\b{name}\b", documented), name


def test_backward_takes_the_options_of_attention():
    results = {"out", "return_lse", "algorithm", "out_dtype"}
    attention = inspect.signature(fanano.attention).parameters
    backward = inspect.signature(fanano.attention_backward).parameters
    assert set(attention) - results <= set(backward)
    shared = [name for name in attention if name in backward and name != "out"]
    assert all(backward[name].default == attention[name].default for name in shared)


def test_explain_takes_the_options_of_attention():
    results = {"out", "return_lse"}
    attention = inspect.signature(fanano.attention).parameters
    explain = inspect.signature(fanano.explain).parameters
    of_backward = ["backward", "grad_mask"]
    shared = [name for name in attention if name not in results]
    assert list(explain) == shared + of_backward
    assert all(explain[name].default == attention[name].default for name in shared)
    backward = inspect.signature(fanano.attention_backward).parameters
    assert explain["grad_mask"].default == backward["grad_mask"].default


def test_worked_example_of_the_docstring():
    results = doctest.testmod(sys.modules["fanano.softmax"])
    assert results.attempted
    assert not results.failed


def test_plan_and_kernels_print():
    plan = fanano._core.explain_shapes(
        (1, 8, 4096, 64), (1, 2, 4096, 64), (1, 2, 4096, 64), "float16"
    )
    for word in ("batch 1", "heads 8 over 2", "float16", "flash", plan.isa):
        assert word in str(plan)
    assert plan.workspace_bytes == 0
    assert 1 <= plan.heads <= 4
    naive = fanano._core.explain_shapes(*[(8, 4096, 64)] * 3, "float64", algorithm="naive")
    assert naive.workspace_bytes == 8 * 4096 * 4096 * 8
    assert naive.algorithm == "naive"
    assert naive.device == "cpu"
    assert naive.tasks >= 1 <= naive.threads
    assert len(naive.tile) == 2
    [chosen] = [k for k in fanano.kernels() if k.chosen]
    assert chosen.runnable
    assert chosen.isa == plan.isa
    assert chosen.isa in repr(chosen)
    isas = tuple(k.isa for k in fanano.kernels() if k.device == "cpu")
    assert fanano.build_info()["isas"] == isas
    for kernel in fanano.kernels():
        assert kernel.runnable == (kernel.why_not == "")
