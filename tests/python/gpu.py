"""The day with a GPU (benchmarks/gpu_day.sh), for the tests that run by ``pytest -m cuda``."""

import os

import pytest


def day():
    """Whether this is one: then a library that finds no GPU is a failure."""
    return bool(os.environ.get("FANANO_GPU_DAY"))


def none(reason):
    """A library finds none: what needs one is left out."""
    if day():
        pytest.fail(f"on the day with a GPU {reason}")
    pytest.skip(reason)
