"""Numbers on a device that no host has looked at, and the nearest ones that there are."""

import emulated
import numpy as np

MOST, LEAST = 2**63 - 1, -(2**63)
FAR = 10**6  # so far from the keys that all of them are seen, or none

# Of two sequences.
WILD = {
    "queries": {"q_lengths": np.array([-5, 2**62])},
    "keys": {"kv_lengths": np.array([2**40, LEAST])},
    "both": {"q_lengths": np.array([MOST, 2**40]), "kv_lengths": np.array([-1, MOST])},
    "offsets": {"q_offset": np.array([MOST, LEAST])},
    "offsets and a window": {  # which brings the first back
        "q_offset": np.array([MOST, LEAST]),
        "window_size": (MOST, None),
    },
    "all at once": {
        "q_lengths": np.array([MOST, 2**31]),
        "kv_lengths": np.array([2**32 + 5, MOST]),
        "q_offset": np.array([LEAST, MOST]),
        "window_size": (MOST, None),
    },
}


def nearest(case, wild):
    """What these count as in this problem."""
    ends = {"q_lengths": (0, case.rows), "kv_lengths": (0, case.keys), "q_offset": (-FAR, FAR)}
    near = {name: np.clip(wild[name], *ends[name]) for name in ends if name in wild}
    return near | ({"window_size": (FAR, None)} if "window_size" in wild else {})


def launched():
    """The names of what has been launched since the last call of emulated.calls()."""
    return " ".join(name for name, *_ in emulated.calls() if not name.startswith("cuda"))
