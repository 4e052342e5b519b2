"""Memory beside the inputs and the output: a constant for each thread, however long the sequences;
decode may keep 64 MiB more, and backward sums of dk and dv. By the high-water mark of a process of
its own."""

import subprocess
import sys

import pytest

from fanano.cli.memory import measurable

pytestmark = pytest.mark.skipif(
    not measurable(), reason="the high-water mark is read from Linux's /proc"
)

LONG = 65536
LATE = 2**20  # what the kernel counts late, of two threads (fanano/cli/memory.py)
CONSTANT = LATE + 2 * 2**20  # and their scratch
SCRIPT = f"""\
import sys
import numpy as np
import fanano
from fanano.cli.memory import extra_peak

rows, heads, options = int(sys.argv[1]), int(sys.argv[2]), eval(sys.argv[3])
fanano.set_num_threads(2)
rng = np.random.default_rng(0)
query = rng.standard_normal((1, heads, rows, 64), dtype=np.float32)
key, value = rng.standard_normal((2, 1, 1, {LONG}, 64), dtype=np.float32)
small = np.ones((1, 2, 40, 64), np.float32)
fanano.attention(small, small, small)  # starts the threads, loads the code
out = np.zeros_like(query)
print(extra_peak(lambda: fanano.attention(query, key, value, out=out, **options)))
"""


@pytest.mark.parametrize(
    ("rows", "heads", "options"),
    [
        # Every row block visits tiles near and far; all of them would take a minute.
        (LONG, 1, "{'is_causal': True, 'window_size': (1500, 0)}"),
        (LONG, 2, "{'window_size': (200, 300), 'alibi_slopes': [0.5, 0.25], 'softcap': 20}"),
        (600, 2, "{}"),
    ],
    ids=str,
)
def test_extra_memory_is_a_constant(rows, heads, options):
    command = [sys.executable, "-c", SCRIPT, str(rows), str(heads), options]
    extra = int(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert extra <= CONSTANT  # the scores of a block of 128 rows would be 32 MiB


@pytest.mark.parametrize("rows", [1, 16])
def test_decode_keeps_the_states_that_the_plan_says(rows):
    """One for each 512 keys, and nothing else that grows with them."""
    script = SCRIPT + "print(fanano.explain(query, key, value).workspace_bytes)"
    command = [sys.executable, "-c", script, str(rows), "8", "{}"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    extra, states = map(int, done.stdout.split())
    assert states <= 64 * 2**20
    assert states > 0
    assert states - LATE <= extra <= states + CONSTANT


BACKWARD = f"""\
import numpy as np
import fanano
from fanano.cli.memory import extra_peak

fanano.set_num_threads(2)
rng = np.random.default_rng(0)
query, key, value = rng.standard_normal((3, 1, 1, {LONG}, 16), dtype=np.float32)
options = {{"is_causal": True, "window_size": (300, 0), "return_lse": True}}
out, lse = fanano.attention(query, key, value, **options)
del options["return_lse"]
call = lambda: fanano.attention_backward(out, query, key, value, out, lse, **options)
print(extra_peak(call), query.nbytes)
"""


def test_extra_memory_of_backward_is_linear():
    """Three results, eight sums of dk and of dv at most, three numbers for each row. The scores
    would be 16 GiB."""
    command = [sys.executable, "-c", BACKWARD]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    extra, array = map(int, done.stdout.split())
    assert extra <= (3 + 2 * 8 + 1) * array + CONSTANT
