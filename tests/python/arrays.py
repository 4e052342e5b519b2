"""One attention problem in every library, and the bits of whatever comes back."""

import ml_dtypes
import numpy as np
import torch
from lender import Lender

DTYPES = ["float64", "float32", "bfloat16", "float16"]


def numbers(*shape, dtype="float32", seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def problem(dtype="float32"):
    return (
        numbers(2, 4, 33, 16, dtype=dtype, seed=1),
        numbers(2, 2, 40, 16, dtype=dtype, seed=2),
        numbers(2, 2, 40, 24, dtype=dtype, seed=3),
    )


def to_torch(x):
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def bits(x):
    """The bytes of an array of any library, row by row."""
    if isinstance(x, torch.Tensor):
        x = x.contiguous().view(torch.uint8).numpy() if x.dim() else x.numpy()
    if isinstance(x, Lender):
        x = x.array
    return np.ascontiguousarray(x).tobytes()
