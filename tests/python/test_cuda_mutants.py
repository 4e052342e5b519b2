"""The CUDA kernels' mutants (tests/cuda/mutate.py) are edits of what stands there: no nvcc."""

import sys
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[1] / "cuda"
sys.path.insert(0, str(CUDA))

import mutate  # noqa: E402


@pytest.mark.parametrize("mutant", mutate.MUTANTS, ids=lambda m: f"{m.what[0]}: {m.name}")
def test_there_is_something_to_edit(mutant):
    source, test, _ = mutant.what
    text = (mutate.ROOT / "cuda" / source).read_text()
    assert mutate.edited(mutant) != text
    assert (CUDA / f"{test}_test.cpp").exists()


def test_no_edit_is_made_twice():
    edits = [(m.what, mutate.edited(m)) for m in mutate.MUTANTS]
    assert len(set(edits)) == len(edits)
