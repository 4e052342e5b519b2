"""What an installed wheel must do with numpy alone. Run by .ci/run and by cibuildwheel; with the
argument "require", of a wheel that must have CUDA kernels."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np

IMPORT = """\
import time, numpy
start = time.perf_counter()
import fanano
print(time.perf_counter() - start)"""


def run(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)


import fanano  # noqa: E402

print(f"fanano {fanano.__version__} from {fanano.__file__}")
assert "site-packages" in fanano.__file__
assert find_spec("torch") is None, "this environment was to hold numpy alone"

# The worked example.
a = [0.1, 0.5, 0.4, 0.2, 0.3, 0.3]
first, second = (fanano.SoftmaxState().absorb(np.array(half)) for half in (a[:3], a[3:]))
whole = first.merge(second)
assert abs(whole.l - 4.95344) < 1e-5, whole
assert whole.m == 0.5, whole

# A small attention against NumPy.
rng = np.random.default_rng(0)
query, key, value = rng.standard_normal((3, 2, 3, 37, 16), dtype=np.float32)
for causal in (False, True):
    scores = query.astype(np.float64) @ key.swapaxes(-1, -2) / 4
    if causal:
        scores = np.where(np.tri(37, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ value
    difference = np.abs(fanano.attention(query, key, value, is_causal=causal) - expected).max()
    print(f"attention, causal={causal}: {difference:.1e} from NumPy in float64")
    assert difference < 1e-6

# The table of CUDA's kernels, with a device or the words why there is none.
cuda = [kernel for kernel in fanano.kernels() if kernel.device == "cuda"]
assert fanano.build_info()["cuda"] == bool(cuda)
assert all(kernel.runnable == (kernel.why_not == "") for kernel in cuda), cuda
assert cuda or "require" not in sys.argv[1:], "this wheel was to have CUDA kernels"

seconds = min(float(run("-c", IMPORT).stdout) for _ in range(5))
print(f"import: {1e3 * seconds:.1f} ms with numpy already imported")
assert seconds < 0.1

print(run("-m", "fanano", "info").stdout, end="")
demo = subprocess.run([sys.executable, "-m", "fanano", "demo"], stderr=subprocess.PIPE, text=True)
assert demo.returncode == 1, demo
assert "pip install" in demo.stderr, demo
assert "Traceback" not in demo.stderr, demo
print("smoke test passed")
