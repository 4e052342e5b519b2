"""What attention on a CUDA device is tried on, by the emulator and on a real one."""

import re

import numpy as np

# Small, for the emulator takes its time; the kernels themselves are tested by tests/cuda.
PLAIN = {"rows": 9, "keys": 67, "heads": (1, 2, 1, 4), "where": "causal"}
PADDED = {"heads": (2, 1, 1, 4)}
OPTIONS = {
    "dense": {"where": "full"},
    "window": {"window": (40, 3)},
    "offsets": PADDED | {"where": "per batch"},
    "lengths": PADDED | {"lengths": "both"},
    "some empty": PADDED | {"lengths": "some empty"},
    "one query": {"rows": 1},
    "split keys": {"rows": 3, "keys": 1100},
    "many queries": {"rows": 19},
    "scale": {"scale": -0.8},
    "growing": {"data": "growing"},
    "bshd": {"layout": "bshd"},
    "rank 3": {"heads": (1, 2, 1, 3), "layout": "bshd"},
    "rank 2": {"heads": (1, 1, 1, 2)},
    "odd": {"dims": (33, 7), "strides": "odd rows"},
    "turned": {"strides": "turned"},
    # Blocks of 64 keys may all be hidden: of several some are seen.
    "mask": {"mask": "bool (B, 1, Sq, Sk)", "keys": 200, "rows": 19},
    "bias": {"mask": "float32 (Sq, Sk)", "keys": 200, "rows": 19},
    "softcap": {"softcap": 0.7},
    "slopes": PADDED | {"slopes": "batch"},
    "sinks": {"sinks": True},
    "partial": {"out_dtype": "float32"},
    "hidden": PADDED | {"data": "hidden", "lengths": "keys"},
    "partly hidden": {"data": "partly hidden"},
    "visible nan": {"data": "visible nan"},
}


def host_numbers(options):
    """Lengths, offsets, slopes and sinks as lists."""
    lists = {x: y.tolist() for x, y in options.items() if isinstance(y, np.ndarray) and y.ndim < 3}
    return options | {x: y for x, y in lists.items() if x != "attn_mask"}


def device_numbers(options):
    """The same where kernels read them: int64 and float64, one after the other."""
    kinds = dict.fromkeys(("q_lengths", "kv_lengths", "q_offset"), np.int64)
    kinds |= dict.fromkeys(("alibi_slopes", "sinks"), np.float64)
    return options | {
        name: np.ascontiguousarray(options[name], kind)
        for name, kind in kinds.items()
        if isinstance(options.get(name), np.ndarray)
    }


def by_sm80(row):
    """Which kernel of the table a row is by its name: what, columns, kind."""
    return re.fullmatch(r"(flash|decode|backward)_sm80_[a-z0-9]+_(\d+)(?:_(\w+))?", row.name)


def taken_by(row):
    """Numbers of columns, and options, with which the table's first row that takes them is this: of
    few queries, where it is decode's."""
    if found := by_sm80(row):
        dim = int(found[2])
        return [(dim, dim), (dim - 7, dim)], {"softcap": 2.0} if found[3] == "general" else {}
    if "_plain_" in row.name and "16" in row.dtype:  # beyond those of sm_80
        return [(150, 150) if row.name.startswith("backward") else (300, 300)], {}
    return [(64, 64), (33, 70)], {}


def kernel_of(row):
    """What the kernel's mangled name has in it, which is launched where the row is chosen."""
    types = {"float64": "d", "float32": "f"}
    types |= {name: f"NS_{len(name)}{name}E" for name in ("bfloat16", "float16")}
    if found := by_sm80(row):
        name = {"backward": "backward_queries"}.get(found[1], f"{found[1]}_sm80") + "_kernel"
        general = f"Lb{int(found[3] == 'general')}E" if found[3] else ""
        return f"{name}I{types[row.dtype]}Li{found[2]}E{general}E"
    first = {"materialised": "scores", "flash": "flash_plain", "backward": "dq"}
    return f"{first[row.name.split('_')[0]]}_kernelI{types[row.dtype]}"
