"""fanano under threadpoolctl, registered in processes of their own: it cannot be taken back."""

import importlib.util
import shutil

import pytest
from scripts import script

import fanano

threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

pytestmark = pytest.mark.skipif(
    not hasattr(threadpoolctl, "register"), reason="threadpoolctl before 3.2 registers nobody"
)

OURS = """
    import fanano, threadpoolctl

    def ours():
        return [row for row in threadpoolctl.threadpool_info() if row["user_api"] == "fanano"]
"""


def run(text, **environment):
    return script(OURS + text, **environment)


@pytest.mark.parametrize("first", ["fanano", "threadpoolctl"])
def test_the_import_registers(first):
    assert run(
        f"""
    import {first}
    assert ours() == []
    fanano.set_num_threads(3)
    import fanano.threadpoolctl
    [row] = ours()
    assert row["num_threads"] == 3 and row["internal_api"] == "fanano"
    assert row["version"] == fanano.__version__ and row["filepath"] == fanano._core.__file__
    print("ok")
    """
    ) == "ok"  # fmt: skip


def test_limits_hold_and_end():
    assert run(
        """
    import fanano.threadpoolctl
    import numpy as np
    x = np.ones((1, 4, 2000, 64), np.float32)
    fanano.set_num_threads(5)
    for limits, user_api in (2, None), (2, "fanano"), ({"fanano": 2}, None):
        with threadpoolctl.threadpool_limits(limits=limits, user_api=user_api):
            assert fanano.get_num_threads() == fanano.explain(x, x, x).threads == 2
            assert [row["num_threads"] for row in ours()] == [2]
        assert fanano.get_num_threads() == 5
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        assert fanano.get_num_threads() == 5
    threadpoolctl.threadpool_limits(limits=1)
    assert fanano.get_num_threads() == 1
    print("ok")
    """
    ) == "ok"  # fmt: skip


def test_a_limit_that_is_none():
    assert run(
        """
    import fanano.threadpoolctl
    fanano.set_num_threads(5)
    for limit in 0, 5000:
        try:
            threadpoolctl.threadpool_limits(limits=limit, user_api="fanano")
        except ValueError as error:
            print(error)
    assert fanano.get_num_threads() == 5
    """
    ).splitlines() == [
        f"num_threads: got {n}, expected at least 1 and at most 4096" for n in (0, 5000)
    ]


def test_what_else_is_called_core_is_left_alone(tmp_path):
    """Many packages have a module of that name."""
    other = tmp_path / "_core.abi3.so"
    shutil.copy(importlib.util.find_spec("_ctypes").origin, other)
    assert run(
        f"""
    import ctypes
    other = ctypes.CDLL({str(other)!r})
    import fanano.threadpoolctl
    print(*(row["filepath"] for row in ours()))
    """
    ) == fanano._core.__file__  # fmt: skip
