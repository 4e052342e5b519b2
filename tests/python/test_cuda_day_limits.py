"""Where the day with a GPU goes wrong: steps that fail, that hang, that are too late."""

import pytest
from gpu_day import (  # noqa: F401
    a_folder,
    a_python_of_another,
    executable,
    results,
    run,
    with_tests,
)


def test_one_step_that_fails_stops_no_other(tmp_path):
    """A Python that is none: all is still tried, and said."""
    done, summary, log = run(tmp_path, FANANO_GPU_DAY_PYTHON="false")
    found = results(summary)
    assert done.returncode == 1
    assert [found[name] for name in ("environment", "device", "info")] == ["failed"] * 3
    assert found["profile"] == found["bench, full"] == "not run"
    assert "failed: 3  timed out: 0" in summary
    assert "==== environment: failed" in log


def test_a_step_that_hangs_is_ended(tmp_path):
    executable(tmp_path / "python", "exec sleep 100")
    environment = {"FANANO_GPU_DAY_PYTHON": str(tmp_path / "python")}
    done, summary, _ = run(tmp_path, FANANO_GPU_DAY_SECONDS="5", **environment)
    assert done.returncode == 1
    assert results(summary)["environment"] == "timed out"
    assert "after 5 s" in summary


def test_no_step_is_begun_when_the_time_is_up(tmp_path):
    done, summary, _ = run(tmp_path, FANANO_GPU_DAY_SECONDS="1")
    assert done.returncode == 0
    assert set(results(summary).values()) == {"not run"}
    assert summary.count("the time is up") == len(results(summary)) > 10


HANGS = """
import signal
def test_which_fails():
    assert "this text" == "is kept"
def test_which_hangs():
    {how}
"""


@pytest.mark.parametrize("blocks", [False, True], ids=["interrupted", "killed"])
def test_what_failed_before_a_test_that_hangs_is_kept(blocks, folder, python_of_another):
    """If it cannot be interrupted, as in a kernel that hangs, without the summary of pytest."""
    how = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); time.sleep(100)"
    if blocks:
        script = folder / "benchmarks" / "gpu_day.sh"
        script.write_text(script.read_text().replace("-s INT -k 10", "-s INT -k 1"))
    with_tests(folder, torch_cuda=HANGS.format(how=how if blocks else "time.sleep(100)"))
    done, summary, log = run(folder, FANANO_GPU_DAY_SECONDS="20", **python_of_another())
    assert done.returncode == 1
    assert results(summary)["torch_cuda"] == "timed out", summary + log
    assert "AssertionError: assert 'this text' == 'is kept'" in log
    assert (folder / "out" / "test_torch_cuda.xml").exists() != blocks
    assert ("1 failed in " in log) != blocks, log
