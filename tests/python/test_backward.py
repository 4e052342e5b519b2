"""The gradients of attention, by the judgement of compare.py: every dtype and option, and what must
hold of them bit for bit."""

import functools

import cases
import compare
import pytest
from cases import Case

import fanano

dtypes = pytest.mark.parametrize("dtype", compare.DTYPES)
NAMES = compare.GRADIENTS

# Gradients are computed in blocks of 64 rows, 32 of float64, of which four or
# eight pass the keys together.
FACTORS = cases.FACTORS | {
    "rows": (0, 1, 9, 17, 32, 65, 97),
    "keys": (0, 1, 3, 65, 127, 129, 257),
    "algorithm": ("flash",),
    "out_dtype": (None, "float32"),
}


def grid(dtype):
    """Features combined pairwise, and problems of many rows and keys."""
    for choice in cases.pairwise(FACTORS):
        if dtype == "float64":
            choice["out_dtype"] = None
        if choice["data"] == "large values" and choice["mask"].startswith("float16"):
            choice["mask"] = "float32 (B, H, Sq, Sk)"  # a half would not hold its gradient
        yield Case(dtype, **choice)
    for dims in (64, 64), (128, 128), (96, 33):
        for where, data in ("full", "normal"), ("causal", "growing"), ("shifted", "partly hidden"):
            if dims != (128, 128) or where != "full":
                sizes = {"rows": 131, "keys": 389, "heads": (1, 2, 1, 4), "dims": dims}
                yield Case(dtype, **sizes, where=where, data=data)
    yield Case(dtype, rows=67, keys=131, dims=(576, 512), heads=(1, 1, 1, 2), where="causal")
    for size in ("1e4",) if dtype == "float16" else ("1e4", "1e7", "1e30"):  # dq is no half there
        yield Case(
            dtype, rows=193, keys=131, heads=(1, 4, 2, 4), where="causal", data=f"logits {size}"
        )
    for where in "full", "causal", "upper left":  # more than one pass over the keys
        yield Case(dtype, rows=600, keys=150, heads=(1, 2, 1, 4), dims=(24, 40), where=where)


GRID = {dtype: list(dict.fromkeys(grid(dtype))) for dtype in compare.DTYPES}


def chosen_isa():
    return next(kernel.isa for kernel in fanano.kernels() if kernel.chosen)


def run(arrays, dout, *, dlse=None, out_dtype=None, grad_mask=None, **options):
    """Forward, then backward."""
    out, lse = fanano.attention(*arrays, return_lse=True, out_dtype=out_dtype, **options)
    mask = options.get("attn_mask")
    if grad_mask is None:
        grad_mask = mask is not None and mask.dtype != bool
    dout = dout.astype(out.dtype)
    return fanano.attention_backward(
        dout, *arrays, out, lse, dlse=dlse, grad_mask=grad_mask, **options
    )


@functools.cache
def ratios(case):
    """Runs and judges one problem: of each gradient, its errors over those of plain attention."""
    judgement = compare.GradientJudgement(str(case))
    for draw in range(case.draws):
        arrays, (dout, dlse) = case.arrays(draw), case.upstream(draw)
        got = run(arrays, dout, dlse=dlse, out_dtype=case.out_dtype, **case.options)
        judgement.add(got, *arrays, dout, dlse=dlse, **case.options)
    return judgement.verdict()


@pytest.mark.parametrize("case", [c for grid in GRID.values() for c in grid], ids=str)
def test_each_problem(case):
    ratios(case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_as_close_as_plain_on_average(dtype):
    """float64 is judged absolutely. dbias is judged by 18 problems, few of which have anything to
    round; the scalar kernels, which have no fused multiply-add, reach 1.17 there."""
    limit = dict.fromkeys(NAMES, 1.05 if dtype == "float32" else 1.0)
    if dtype == "float32" and chosen_isa() == "scalar":
        limit["dbias"] = 1.2
    of_all = [ratios(case) for case in GRID[dtype]]
    for name in NAMES:
        of_name = [of_one[name] for of_one in of_all if name in of_one]
        assert compare.geometric_mean(r.maximum for r in of_name) <= limit[name], name
        assert compare.geometric_mean(r.mean for r in of_name) <= limit[name], name
