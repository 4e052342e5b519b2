"""Breaks the CUDA kernels in one place at a time and sees whether their tests notice.

    python tests/cuda/mutate.py build/test            # all mutants
    python tests/cuda/mutate.py build/test barrier V  # those whose name has one of these words

A mutant is an edit of one source. It is compiled into a copy of the folder, linked with the test's
own objects and run; it is killed by a report of the emulator ("diagnosed") or by wrong numbers.
Prints what became of each, and the score. Needs a build of the tests; several seconds a mutant.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLASH, SOFTMAX = ("flash_sm80.cuh", "flash", "bfloat16"), ("softmax.cuh", "softmax", "float32")
PRODUCT = ("materialised.cuh", "materialised", "float32")
PLAIN = ("flash_plain.cuh", "flash_plain", "float64")
LOGITS, KEPT = ("logits.cuh", *PLAIN[1:]), ("kept.cuh", *PLAIN[1:])
EXP2 = ("exp2.cuh", *PLAIN[1:])


@dataclass
class Mutant:
    what: tuple[str, str, str]  # source, its test, the dtype that is compiled with it
    name: str
    old: str
    new: str = ""
    nth: int = 0  # of the places where old stands
    why_alive: str = ""  # a survivor that is known, and why


WAIT, SYNC, COMMIT = "ptx::cp_async_wait<0>();", "__syncthreads();", "ptx::cp_async_commit();"
MUTANTS = [
    Mutant(FLASH, "no wait for K", WAIT),
    Mutant(FLASH, "no barrier before K", SYNC),
    Mutant(FLASH, "no wait for V", WAIT, nth=1),
    Mutant(FLASH, "V waits for all but one", WAIT, "ptx::cp_async_wait<1>();", 1),
    Mutant(FLASH, "no barrier before V", SYNC, nth=1),
    Mutant(FLASH, "no last wait", WAIT, nth=2),
    Mutant(FLASH, "no first commit", COMMIT),
    Mutant(FLASH, "no commit of V", COMMIT, nth=1),
    Mutant(FLASH, "no commit of the next K", COMMIT, nth=2),
    Mutant(FLASH, "the warp does not wait for its rows", "__syncwarp();"),
    Mutant(FLASH, "a barrier for some warps", SYNC, "if (warp_row != 32) __syncthreads();", 1),
    Mutant(FLASH, "a shuffle in some lanes", "row.l += ptx::", "if (lane < 16) row.l += ptx::"),
    Mutant(FLASH, "the next K is this one", "p.k.row, j0 + flash_keys", "p.k.row, j0"),
    Mutant(FLASH, "the first K is that of key 0", "tiles.begin * flash_keys,\n", "0,\n"),
    Mutant(FLASH, "V of all keys", "p.v.row, j0, sequence.keys", "p.v.row, j0, p.shape.keys + 9"),
    Mutant(FLASH, "Q past its rows", "sequence.queries);\n    k_smem",
           "row0 + flash_rows);\n    k_smem"),
    Mutant(FLASH, "fragments of Q", "lane % 16, i * 2 + lane / 16)", "lane % 16, i * 2)"),
    Mutant(FLASH, "fragments of K", "lane / 8 % 2", "lane / 16 % 2"),
    Mutant(FLASH, "fragments of K swapped", "k_frag[0], k_frag[1]", "k_frag[0], k_frag[2]"),
    Mutant(FLASH, "V not transposed", "ldmatrix_x4_transposed", "ldmatrix_x4"),
    Mutant(FLASH, "fragments of V", "d + lane / 16)", "d)"),
    Mutant(FLASH, "fragments of P", "part % 2 * 2]", "part / 2 * 2]"),
    Mutant(FLASH, "rows of the mask", "lane / 4 + e / 2 * 8", "lane / 4 + e % 2 * 8"),
    Mutant(FLASH, "columns of the mask", "lane % 4 * 2 + e % 2", "lane % 4 * 2"),
    Mutant(FLASH, "no mask", "bool seen = whole ||", "bool seen = true ||"),
    Mutant(FLASH, "every tile is whole", "bool whole = ", "bool whole = j0 > 0 || "),
    Mutant(FLASH, "no sign", "* sign : -inf", ": -inf"),
    Mutant(FLASH, "maximum of half a quad", "bits < 4", "bits < 2"),
    Mutant(FLASH, "sum of half a quad", "bits < 4", "bits < 2", 1),
    Mutant(FLASH, "o is not rescaled", "o[m][d][2 * half] *= alpha, "),
    Mutant(FLASH, "o of the second row", "o[m][d][2 * half + 1] *= alpha", "(void)alpha"),
    Mutant(FLASH, "wrong head of K", "head / (p.shape.heads / p.shape.kv_heads)",
           "head % p.shape.kv_heads"),
    Mutant(FLASH, "lse past the rows", "lane % 4 == 0 && row0 + r < p.shape.queries",
           "lane % 4 == 0"),
    Mutant(FLASH, "out past the rows", "row0 + r < p.shape.queries)\n      ptx::store",
           "row0 + r <= p.shape.queries)\n      ptx::store"),
    Mutant(FLASH, "out of used rows alone", "row0 + r < p.shape.queries)\n      ptx::store",
           "row0 + r < sequence.queries)\n      ptx::store"),
    Mutant(FLASH, "log2 units", "split_scale<float>(p.score.scale, log2e<double>)",
           "split_scale<float>(p.score.scale)"),
    Mutant(FLASH, "states as nvcc makes them", "state[m][0] = state[m][1] = RowState{};", ";"),
    Mutant(SOFTMAX, "no pivot", "sum_of_exp(x, pivot(m), smem)", "sum_of_exp(x, m, smem)"),
    Mutant(SOFTMAX, "l of the last chunk", "state.l += exp", "state.l = exp"),
    Mutant(SOFTMAX, "no rescaling at the end",
           "state.absorb(block_max(state.m, smem));", "state.m = block_max(state.m, smem);"),
    Mutant(SOFTMAX, "stride of out", "out.data[j * out.stride]", "out.data[j]"),
    Mutant(SOFTMAX, "past the row", "column < x.n", "column <= x.n"),
    Mutant(("reduce.cuh", "softmax", "float32"), "no first barrier of reductions", SYNC),
    Mutant(("reduce.cuh", "softmax", "float32"), "no second barrier of reductions", SYNC, nth=1),
    Mutant(("reduce.cuh", "softmax", "float32"), "half a warp", "bits = 16", "bits = 8"),
    Mutant(PLAIN, "no barrier before the scores", SYNC),
    Mutant(PLAIN, "no barrier after the scores", SYNC, nth=1),
    Mutant(PLAIN, "no barrier before the factors", SYNC, nth=2),
    Mutant(PLAIN, "no barrier after the factors", SYNC, nth=3),
    Mutant(PLAIN, "no barrier before the results", SYNC, nth=4),
    Mutant(PLAIN, "K past its sequence", "clamp(place.sequence.keys - j0,",
           "clamp(p.shape.keys - j0,"),
    Mutant(PLAIN, "Q past its rows", "r < rows && c < columns ?", "c < columns ?"),
    Mutant(PLAIN, "columns past the row", "r < rows && c < columns ?", "r < rows ?"),
    Mutant(PLAIN, "keys as they come", "return j / 4 + j % 4 * 8;", "return j;"),
    Mutant(PLAIN, "every tile is whole", "const bool whole =", "const bool whole = j0 > 0 ||"),
    Mutant(PLAIN, "rows past the queries are seen", "whole || (row < queries && ", "whole || ("),
    Mutant(PLAIN, "maximum of half a row", "bits < 8", "bits < 4"),
    Mutant(PLAIN, "sum of half a row", "bits < 8", "bits < 4", 1),
    Mutant(PLAIN, "l is not rescaled", ", l[r] *= alpha"),
    Mutant(PLAIN, "o is not rescaled", "o[r][g][e] *= alpha", "o[r][g][e] *= 1"),
    Mutant(PLAIN, "no pivot", "m[r] - pivot(raised)", "m[r] - raised"),
    Mutant(PLAIN, "no mark of what is not seen", "!seen[c] ? not_seen<A> : ", ""),
    Mutant(PLAIN, "all values are finite", "__syncthreads_and(finite))  //",
           "__syncthreads_and(finite) || true)  //"),
    Mutant(PLAIN, "values are never finite", "__syncthreads_and(finite))  //",
           "__syncthreads_and(finite) && false)  //",
           why_alive="the same bits, more slowly"),
    Mutant(PLAIN, "the values of this thread are finite", "if (__syncthreads_and(finite))",
           "__syncthreads(); if (finite)"),
    Mutant(PLAIN, "no second pass", "again = !__syncthreads_and(finite) && !again",
           "again = !__syncthreads_and(finite) && false"),
    Mutant(PLAIN, "the second pass writes all", "if (!only_broken ||", "if (true ||"),
    Mutant(PLAIN, "weights of 0 in the second pass", "if (headroom != 0 && x", "if (false && x"),
    Mutant(PLAIN, "dropout before l", "l[r] += weight", "l[r] += four >> c & 1 ? weight : A(0)"),
    Mutant(PLAIN, "a sink for padding", "p.score.sinks && row < queries", "p.score.sinks"),
    Mutant(PLAIN, "no factor of the sink", "scale *= exp(m - state.m)", "(void)m"),
    Mutant(PLAIN, "headroom stays in lse's factor", "* power_back};", "};"),
    Mutant(PLAIN, "no sign of the scale", "logits.constants.scale.sign, smem.q", "A(1), smem.q"),
    Mutant(PLAIN, "V of the first columns", "+ place.column0 * p.v.column", ""),
    Mutant(PLAIN, "out of the first columns", "(place.column0 + c) * to.column", "c * to.column"),
    Mutant(PLAIN, "lse of every block", "place.column0 == 0 && row", "row"),
    Mutant(LOGITS, "no power", "score * c.scale.power", "score"),
    Mutant(LOGITS, "slope without the low part", "(slope.low - A(j))", "(-A(j))",
           why_alive="float64 tells all keys apart: low is 0"),
    Mutant(LOGITS, "no distance behind", "distance < 0 ? -distance : distance", "distance"),
    Mutant(LOGITS, "no clamp", "clamp_finite(as<double>()[at], most_added<A>)",
           "A(as<double>()[at])"),
    Mutant(LOGITS, "a hidden pair is seen", "seen = more != -infinity<A>", "seen = true"),
    Mutant(LOGITS, "no batch of slopes", "batch * s.slopes_batch + head", "head"),
    Mutant(LOGITS, "no head of the mask", "head * p.mask.head", "0"),
    Mutant(KEPT, "the second four", "if (shift) bits", "if (false) bits"),
    Mutant(KEPT, "no row of the origin", "uint32_t(row + i)", "uint32_t(i)"),
    Mutant(KEPT, "more than kept", "words.x[k] >= least", "words.x[k] > least >> 1"),
    Mutant(EXP2, "no limit of tanh", "x = x > limit ? limit : x < -limit ? -limit : x;"),
    Mutant(EXP2, "no flush", "x < least_exponent<A> ? 0 : power", "power"),
    Mutant(("place.cuh", *PLAIN[1:]), "wrong head of K",
           "head / (p.shape.heads / p.shape.kv_heads)", "head % p.shape.kv_heads"),
    Mutant(PRODUCT, "no barrier before the scores", SYNC),
    Mutant(PRODUCT, "no barrier after the scores", SYNC, nth=1),
    Mutant(PRODUCT, "no barrier before the product", SYNC, nth=2),
    Mutant(PRODUCT, "no barrier after the product", SYNC, nth=3),
    Mutant(PRODUCT, "what is not seen", "if (is_seen(p_smem[y][i])) o =", "o ="),
    Mutant(PRODUCT, "no mask of the product", "!elements.hides<A>(row, j)", "true"),
    Mutant(PRODUCT, "no sink", "state = with_sink(", "with_sink("),
    Mutant(PRODUCT, "a naive sink's maximum", "if (naive) return", "if (false) return"),
    Mutant(PRODUCT, "K past its sequence", "key < place.sequence.keys ?", "true ?"),
    Mutant(("swizzle.cuh", "flash_traffic", "bfloat16"), "a weaker swizzle", "row % chunks",
           "row % 4"),
    Mutant(("swizzle.cuh", "flash", "bfloat16"), "one row too many", "row0 + row < end",
           "row0 + row <= end"),
    Mutant(("absorb.cuh", "flash", "bfloat16"), "alpha of an empty row",
           "m == -infinity<float> ? 0 : "),
    Mutant(("absorb.cuh", "flash", "bfloat16"), "no pivot", "pivot(raised)", "raised"),
]  # fmt: skip


def edited(mutant):
    """The whole text of the source with one place changed."""
    text = (ROOT / "cuda" / mutant.what[0]).read_text()
    at = -1
    for _ in range(mutant.nth + 1):
        at = text.index(mutant.old, at + 1)
    return text[:at] + mutant.new + text[at + len(mutant.old) :]


def outcome(mutant, build, folder):
    """'killed: how', 'alive', or 'does not compile'."""
    source, test, dtype = mutant.what
    shutil.copytree(ROOT / "cuda", folder / "cuda")
    (folder / "cpp").symlink_to(ROOT / "cpp")
    (folder / "cuda" / source).write_text(edited(mutant))
    objects = build / "tests" / "cuda" / "cuda_objects"
    how = json.loads((build / "generated" / "cuda.json").read_text())
    includes = [f"-I{path}" for path in (folder / "cuda", *how["includes"])]
    compiled = subprocess.run(
        [how["nvcc"], *how["flags"], *how["ptx"], *includes, "-c", "-o", folder / "k.o",
         build / "generated" / f"kernels_{dtype}.cu"], capture_output=True, text=True
    )  # fmt: skip
    if compiled.returncode:
        return "does not compile: " + compiled.stderr[:300]
    others = [p for p in objects.glob("kernels_*.o") if p.stem != f"kernels_{dtype}"]
    emulator = next(build.rglob("libfanano_emulator.a"))
    subprocess.run(
        ["g++", objects / f"{test}_test.o", folder / "k.o", *others, emulator, "-o", folder / "t"],
        check=True,
    )
    try:
        ran = subprocess.run([folder / "t"], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return "killed: it does not end"
    if ran.returncode == 0:
        return "alive"
    said = [line for line in ran.stderr.splitlines() if line.startswith("emulator: ")]
    return "killed: " + (said[0] if said else "wrong numbers")


def main():
    build, words = Path(sys.argv[1]).resolve(), sys.argv[2:]
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    alive = []
    for mutant in chosen:
        with tempfile.TemporaryDirectory() as folder:
            result = outcome(mutant, build, Path(folder))
        if not result.startswith("killed"):
            alive.append(mutant)
        print(f"{mutant.what[0]}, {mutant.name}: {result} {mutant.why_alive}"[:230], flush=True)
    killed = len(chosen) - len(alive)
    print(f"{killed} of {len(chosen)} killed, {100 * killed / max(len(chosen), 1):.0f} %")
    return any(not m.why_alive for m in alive)


if __name__ == "__main__":
    sys.exit(main())
