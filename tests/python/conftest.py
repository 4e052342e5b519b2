"""What every test shares: the instruction set under test, hypothesis, where fanano is from."""

import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

import fanano

settings.register_profile("quick", max_examples=100, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=1000)
settings.register_profile("sanitized", parent=settings.get_profile("quick"), max_examples=30)

CANNOT_RUN = 77  # ctest counts this exit code as skipped


class NoFrameworks:
    """torch and JAX are not installed, as far as runs under the sanitizers go."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "jax"):
            raise ModuleNotFoundError(f"{name} stays out of runs under the sanitizers", name=name)


SANITIZED = bool(os.environ.get("FANANO_SANITIZE"))
if SANITIZED:
    sys.meta_path.insert(0, NoFrameworks())


def pytest_configure(config):
    thorough = config.option.markexpr == "thorough"
    settings.load_profile("thorough" if thorough else "sanitized" if SANITIZED else "quick")
    stage = os.environ.get("FANANO_STAGE")
    if stage and not Path(fanano.__file__).is_relative_to(stage):
        pytest.exit(f"fanano comes from {fanano.__file__}, not from the build in {stage}", 2)
    try:
        fanano.kernels()
    except ValueError as error:  # FANANO_ISA names one that is compiled, and cannot run here
        if "this CPU lacks" not in str(error):
            raise
        pytest.exit(f"skipped: {error}", CANNOT_RUN)


def pytest_collection_modifyitems(config, items):
    """Sanitized kernels take twenty times as long, and what they compute others have judged: of a
    test's cases, where it has more than eight, every third runs."""
    if not SANITIZED:
        return
    cases = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    left_out = {
        item for same in cases.values() if len(same) > 8 for i, item in enumerate(same) if i % 3
    }
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


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
