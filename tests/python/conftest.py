"""What every test shares: the instruction set under test, hypothesis, where fanano is from."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

import fanano

settings.register_profile("quick", max_examples=100, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=1000)

CANNOT_RUN = 77  # ctest counts this exit code as skipped


class NoFrameworks:
    """torch and JAX are not installed, as far as runs under the sanitizers go."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "jax"):
            raise ModuleNotFoundError(f"{name} stays out of runs under the sanitizers", name=name)


if os.environ.get("FANANO_SANITIZE"):
    sys.meta_path.insert(0, NoFrameworks())


def pytest_configure(config):
    settings.load_profile("thorough" if config.option.markexpr == "thorough" else "quick")
    stage = os.environ.get("FANANO_STAGE")
    if stage and not Path(fanano.__file__).is_relative_to(stage):
        pytest.exit(f"fanano comes from {fanano.__file__}, not from the build in {stage}", 2)
    try:
        fanano.kernels()
    except ValueError as error:  # FANANO_ISA names one that is compiled, and cannot run here
        if "this CPU lacks" not in str(error):
            raise
        pytest.exit(f"skipped: {error}", CANNOT_RUN)


@pytest.fixture
def threads():
    """set_num_threads, and back to what it was."""
    before = fanano.get_num_threads()
    yield fanano.set_num_threads
    fanano.set_num_threads(before)


@pytest.fixture
def build_dir():
    """The build tree, for what can only be seen there."""
    path = os.environ.get("FANANO_BUILD_DIR")
    if not path:
        pytest.skip("looks at the objects of a build tree: ctest says where that is")
    return Path(path)
