"""The bits of fanano's results, one digest a line: run it under two versions and compare.

Needs numpy and ml_dtypes. What goes in are multiples of 1/512, the same on every machine.
"""

import hashlib
import os
import subprocess
import sys

import ml_dtypes
import numpy as np

import fanano

DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
DTYPES["float16"] = np.float16
SHAPES = [(1, 1, 1, 1), (2, 4, 37, 16), (1, 2, 129, 64), (1, 2, 67, 80), (1, 2, 300, 128)]


def digests(isa):
    draw = np.random.RandomState(0).randint  # this stream of numbers is frozen
    for name, dtype in DTYPES.items():
        seen = hashlib.sha256()
        for batch, heads, rows, dim in SHAPES:
            shapes = [(batch, heads, rows, dim), *[(batch, 1, rows + 5, dim)] * 2]
            query, key, value = ((draw(-1024, 1025, shape) / 512).astype(dtype) for shape in shapes)
            seen.update(fanano.softmax(query).tobytes())
            for algorithm in ("flash", "online", "safe", "naive"):
                for causal in (False, True):
                    options = {"is_causal": causal, "return_lse": True, "algorithm": algorithm}
                    out, lse = fanano.attention(query, key, value, **options)
                    for array in (out, lse, *fanano.merge_states(out, lse, -out, lse / 2)):
                        seen.update(array.tobytes())
        print(f"{isa:12} {name:10} {seen.hexdigest()[:16]}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        digests(sys.argv[1])
    else:
        for isa in (kernel.isa for kernel in fanano.kernels() if kernel.runnable):
            environment = {**os.environ, "FANANO_ISA": isa}
            subprocess.run([sys.executable, __file__, isa], env=environment, check=True)
