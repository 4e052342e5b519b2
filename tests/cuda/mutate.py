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
SOFTMAX = ("softmax.cuh", "softmax", "kernels_float32")
REDUCE = ("reduce.cuh", "softmax", "kernels_float32")
PRODUCT = ("materialised.cuh", "materialised", "kernels_float32")
PLAIN = ("flash_plain.cuh", "flash_plain", "kernels_float64")
TILE = ("plain_tile.cuh", *PLAIN[1:])
PLAIN_LOGITS, KEPT = ("logits.cuh", *PLAIN[1:]), ("kept.cuh", *PLAIN[1:])
EXP2 = ("exp2.cuh", *PLAIN[1:])
BACKWARD, ROWS, PAIRS, BIAS = (
    (f"{name}.cuh", "backward", "kernels_float64")
    for name in ("backward_plain", "backward_rows", "pair_tile", "backward_bias")
)


def flash(source, test="flash", variant="64_plain"):
    return f"{source}.cuh", test, f"flash_bfloat16_{variant}"


def gradients(source, variant="64_plain", test="backward_sm80"):
    return f"{source}.cuh", test, f"backward_bfloat16_{variant}"


def options(source):
    return flash(source, "flash_options", "64_general")


def decode(source, test="decode"):
    return f"{source}.cuh", test, "decode_bfloat16_64"


DECODE, COMBINE, STATES = decode("decode_sm80"), decode("combine"), decode("states")
FLASH, NAN = flash("flash_sm80"), flash("special_values", "flash_nan")
OPTIONS, GENERAL = flash("flash_sm80", "flash_options"), options("flash_sm80")
HEAD, HEAD_OPTIONS = flash("head_block"), options("head_block")
FRAGMENTS, ABSORB, SWIZZLE = flash("fragments"), flash("absorb"), flash("swizzle")
BITS, LOGITS, MASK = options("row_bits"), options("logits"), options("mask_scores")


DQ, DKV = gradients("backward_sm80_queries"), gradients("backward_sm80_keys")
VERBS, VERBS_GENERAL = gradients("gradients"), gradients("gradients", "64_general")


@dataclass
class Mutant:
    what: tuple[str, str, str]  # source, its test, the instance that is compiled with it
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
    Mutant(FLASH, "a barrier for some warps", SYNC, "if (warp_row() != 32) __syncthreads();", 1),
    Mutant(FLASH, "a shuffle in some lanes", "row.l += ptx::", "if (lane() < 16) row.l += ptx::"),
    Mutant(FLASH, "the next K is this one", "(k, j0 + keys,", "(k, j0,"),
    Mutant(FLASH, "the first K is that of key 0", "(k, tiles.begin * keys", "(k, 0"),
    Mutant(FLASH, "V of all keys", "(v, j0, sequence.keys", "(v, j0, sequence.keys + 9"),
    Mutant(FLASH, "Q past its rows", "(q, row0, sequence.queries", "(q, row0, row0 + rows"),
    Mutant(FLASH, "no mask", "if (sees != all) hide"),
    Mutant(HEAD, "every tile is whole", "tile_columns) ? all : some", "tile_columns) ? all : all"),
    Mutant(HEAD, "a tile of few rows sees nothing", "rows.size() == 0 ||", "rows.size() < Rows ||"),
    Mutant(HEAD, "the next tile sees nothing", "columns.end <= j0 ||",
           "columns.end <= j0 + Keys ||"),
    Mutant(HEAD, "the first tile sees nothing", "columns.begin >= j0 + Keys",
           "columns.begin >= j0"),
    Mutant(HEAD, "a tile of few rows is whole", "rows.size() == Rows && ", ""),
    Mutant(FLASH, "no sign", "if (constants.scale.sign == 1) return;", "return;"),
    Mutant(FLASH, "the sign without a wait",
           "return;\n    ptx::cp_async_wait<0>();", "return;"),
    Mutant(FLASH, "no power", "if (constants.scale.power != 1)", "if (false)"),
    Mutant(FLASH, "sum of half a quad", "bits < 4", "bits < 2"),
    Mutant(flash("place"), "wrong head of K", "head_ / (p.shape.heads / p.shape.kv_heads)",
           "head_ % p.shape.kv_heads"),
    Mutant(FLASH, "lse past the rows", "lane() % 4 == 0 && there", "lane() % 4 == 0"),
    Mutant(FLASH, "out past the rows", "row0 + r < p.shape.queries) q_smem",
           "row0 + r <= p.shape.queries) q_smem"),
    Mutant(FLASH, "out of used rows alone", "row0 + r < p.shape.queries) q_smem",
           "row0 + r < sequence.queries) q_smem"),
    Mutant(HEAD, "log2 units", "batch, head, log2e<double>", "batch, head, 1"),
    Mutant(FLASH, "states as nvcc makes them", "state[m][0] = state[m][1] = RowState{};", ";"),
    Mutant(FLASH, "nobody waits for the block's work", SYNC, nth=2),
    Mutant(flash("flash_sm80", "flash_nan"), "never again",
           "careful || !broken(", "true || !broken("),
    Mutant(NAN, "half of o is looked at",
           "e = 0; e < 4; ++e) none", "e = 0; e < 1; ++e) none"),
    Mutant(flash("flash_sm80", "flash_nan"), "always carefully", "(careful || !",
           "(careful || false && !", why_alive="slower, and nothing else"),
    Mutant(flash("flash_sm80", "flash_nan"), "what weighs nothing shows",
           "if (careful) row.kept &= ~weightless(s);"),
    Mutant(flash("absorb", "flash_nan"), "infinities are rescaled",
           "o[m][d][e] = rescaled(o[m][d][e], alpha)", "o[m][d][e] *= alpha"),
    Mutant(flash("numbers", "flash_nan"), "infinities beside a sink",
           "factor == 0 && !is_finite(sum) ? sum : "),
    Mutant(flash("row_bits", "flash_nan"), "what weighs nothing, of half a quad",
           "quad < 4; quad *= 2)  //", "quad < 2; quad *= 2)  //"),
    Mutant(flash("row_bits", "flash_nan"), "what weighs nothing, of another row",
           "== m * 2 + half) of_row", "== m) of_row"),
    Mutant(OPTIONS, "sink of unused rows", "used ? sink", "true ? sink"),
    Mutant(OPTIONS, "sink of another head", "sinks[head]", "sinks[0]"),
    Mutant(OPTIONS, "float32 past the rows", "else if (there)", "else"),
    Mutant(OPTIONS, "a pair of float32 halves", "to[0] = pair.x",
           "to[0] = pair.y"),
    Mutant(HEAD_OPTIONS, "addends are not there", "__syncwarp();",
           why_alive="the block waits for K before they are read"),
    Mutant(HEAD_OPTIONS, "masked tiles are whole", "        sees = some;\n"),
    Mutant(GENERAL, "kept factor", "finished.factor * kept.factor", "finished.factor"),
    Mutant(FRAGMENTS, "fragments of Q", "row + lane % 16, lane / 16)", "row + lane % 16, 0)"),
    Mutant(FRAGMENTS, "fragments of K", "lane / 8 % 2", "lane / 16 % 2"),
    Mutant(FRAGMENTS, "fragments of K swapped", "k_frag[0], k_frag[1]", "k_frag[0], k_frag[2]"),
    Mutant(FRAGMENTS, "V not transposed", "ldmatrix_x4_transposed", "ldmatrix_x4"),
    Mutant(FRAGMENTS, "fragments of V", "place(lane % 16, lane / 16)", "place(lane % 16, 0)"),
    Mutant(FRAGMENTS, "fragments of P", "part % 2 * 2]", "part / 2 * 2]"),
    Mutant(ABSORB, "maximum of half a quad", "bits < 4", "bits < 2"),
    Mutant(ABSORB, "o is not rescaled", "o[m][d][2 * half] *= alpha, "),
    Mutant(ABSORB, "o of the second row", "o[m][d][2 * half + 1] *= alpha", "(void)alpha"),
    Mutant(ABSORB, "alpha of an empty row", "last.m == -infinity<float>", "false"),
    Mutant(ABSORB, "no far logits", "> 0x1p20f", "> 0x1p120f"),
    Mutant(ABSORB, "o of far logits", "last.base(factor) - base(factor)", "0"),
    Mutant(ABSORB, "no pivot", "? 0 : pivot(m)", "? 0 : m"),
    Mutant(flash("absorb", "flash_options"), "a sink below", "own > at ? pivot(own)",
           "own < at ? pivot(own)"),
    Mutant(flash("absorb", "flash_options"), "a sink alone has a factor", "none ? 0 : ptx",
           "ptx"),
    Mutant(options("absorb"), "dropout before l", "row.l += p;\n",
           "row.l += bits >> (n * 8 + e) & 1 ? p : 0;\n"),
    Mutant(MASK, "columns hidden", "bits >> (n * 8 + e) & 1 ? x", "bits >> (n * 8) & 1 ? x"),
    Mutant(MASK, "no scale", "if (!c.plain)", "if (false)"),
    Mutant(MASK, "no softcap", "tanh(x) * c", "x * c"),
    Mutant(MASK, "slope after the key alone", "fabsf(distance)", "distance"),
    Mutant(MASK, "high of a slope", "high + (low", "(low"),
    Mutant(MASK, "columns of addends", "rows.key(m, n, i)); };", "rows.key(m, 0, i)); };"),
    Mutant(MASK, "rows of addends", "addends.at(rows.row(m, n, i)", "addends.at(rows.row(m, n, 0)"),
    Mutant(options("exp2"), "tanh loses what is small", "exp2_slope(step) * step, power - 1)",
           "exp2_slope(step) * step, power) - 1"),
    Mutant(LOGITS, "no clamp of addends", "x > most ? most : x < -most ? -most : A(x)", "A(x)"),
    Mutant(LOGITS, "strides of a mask", "begin + j * column", "begin + j"),
    Mutant(BITS, "half of the word", "if constexpr (Keys > 32)", "if constexpr (Keys > 64)"),
    Mutant(BITS, "a column too early", "threadIdx.x % 4 * 2)", "threadIdx.x % 4)"),
    Mutant(BITS, "mask past the keys", "r0 + r < rows && j < keys", "r0 + r < rows"),
    Mutant(BITS, "mask past the rows", "r0 + r < rows && j < keys", "j < keys"),
    Mutant(BITS, "first key", "bits_below(columns.begin - j0)",
           "bits_below(columns.begin - j0 + 1)"),
    Mutant(BITS, "last key", "bits_below(columns.end - j0)",
           "bits_below(columns.end - j0 - 1)"),
    Mutant(options("kept"), "dropout of whole fours alone", "j = -before;", "j = 0;"),
    Mutant(options("kept"), "dropout of another row", "row + uint32_t(i)", "row"),
    Mutant(options("kept"), "dropout's limit", "words.x[k] >= least", "words.x[k] > 2 * least"),
    Mutant(flash("row_bits", "flash_traffic", "64_general"), "addends without a gap",
           "Keys + Gap", "Keys"),
    Mutant(NAN, "NaN is infinite", "plus = 0x3f80, minus = 0x4300, both = 0x4301",
           "plus = 0x3f80, minus = 0x4300, both = 0x3f80"),
    Mutant(NAN, "one sign of infinity", "x & 0x8000 ", "false "),
    Mutant(NAN, "specials of unseen keys", "fetch_bits<Keys>(seen & kept, r)", "~RowBits(0)"),
    Mutant(NAN, "values as they are", "code<T>(x) ? 0 : x", "x"),
    Mutant(NAN, "specials of the first keys", "const int shift = i * 16", "const int shift = 0"),
    Mutant(NAN, "halves of a pair", "f(pair >> 16) << 16", "f(pair) << 16"),
    Mutant(NAN, "columns of specials", "o[m][d + 1][e], codes[1][e]",
           "o[m][d + 1][e], codes[0][e]"),
    Mutant(flash("special_values", "flash_nan", "64_general"), "dropped infinities",
           "fetch_bits<Keys>(seen & ~kept, r)", "0"),
    Mutant(DECODE, "Q is not waited for", "ptx::cp_async_wait<slots - 1>();"),
    Mutant(DECODE, "no barrier after Q", SYNC),
    Mutant(DECODE, "nobody waits for the block's work", SYNC, nth=1),
    Mutant(DECODE, "no barrier after the warps' states", SYNC, nth=2),
    Mutant(DECODE, "no barrier after the parts' factors", SYNC, nth=3),
    Mutant(DECODE, "no wait for a unit of the ring", "ptx::cp_async_wait<slots - 2>();"),
    Mutant(DECODE, "a unit may be in flight", "wait<slots - 2>", "wait<slots - 1>"),
    Mutant(DECODE, "addends of a warp are not there", "__syncwarp();"),
    Mutant(DECODE, "no barrier of the warp for a unit", "__syncwarp();", nth=1),
    Mutant(DECODE, "no barrier of the warp after the ring", "__syncwarp();", nth=2),
    Mutant(DECODE, "no last wait for the ring", WAIT),
    Mutant(DECODE, "no commit of units", COMMIT),
    Mutant(DECODE, "no commit of Q in decode", COMMIT, nth=1),
    Mutant(DECODE, "a unit comes too early", "load(unit + slots - 1)", "load(unit + slots)"),
    Mutant(DECODE, "V first", "unit % 2 ? v : k", "unit % 2 ? k : v"),
    Mutant(DECODE, "all warps have one's keys", "(t * warps + warp()) * keys",
           "t * warps * keys"),
    Mutant(DECODE, "a split has the next one's keys", "begin, begin + decode_chunk)",
           "begin, begin + 2 * decode_chunk)"),
    Mutant(DECODE, "a split has the last one's keys", "clamp(seen.begin, begin, end_key)",
           "clamp(seen.begin, begin - 128, end_key)"),
    Mutant(DECODE, "rows of one head", "query = 0, ++head;", "query = 0;"),
    Mutant(DECODE, "all rows are of the first head", "(is_used ? head : 0)", "0"),
    Mutant(DECODE, "keys of the last row alone", "query < used.begin ? query : used.begin",
           "query"),
    Mutant(DECODE, "no mask in decode", "if (sees != all) hide(row.seen, s);"),
    Mutant(DECODE, "every tile of decode is whole", "? some : all", "? all : all"),
    Mutant(DECODE, "no sign in decode", "return x * sign", "return x"),
    Mutant(DECODE, "the first head's mask", "places[r].head * elements_head + ", ""),
    Mutant(DECODE, "the first head's slope", "slopes[place.head]", "slopes[0]"),
    Mutant(DECODE, "the first head's dropout", "of_head.head += uint32_t(place.head);"),
    Mutant(DECODE, "never again in decode", "careful || !block.broken(o)", "true"),
    Mutant(DECODE, "half of o is looked at in decode", "e < 4; ++e) none", "e < 1; ++e) none"),
    Mutant(DECODE, "sum of half a quad in decode", "bits < 4", "bits < 2"),
    Mutant(DECODE, "the first warp's maximum", "m_of_warp[w][r] > whole.m ?", "w == 0 ?"),
    Mutant(DECODE, "the last warp's l", "whole.l += part.l", "whole.l = part.l"),
    Mutant(DECODE, "no padding", "if (split == 0)", "if (false)"),
    Mutant(DECODE, "padding of one head", "i < group * unused", "i < unused"),
    Mutant(DECODE, "states of the first split", "place.query, split)] =", "place.query, 0)] ="),
    Mutant(decode("decode_sm80", "flash_traffic"), "o without a gap", "Dim + 8;", "Dim;"),
    Mutant(flash("flash_sm80", "invariance"), "prefill takes few queries, too",
           "if (block.sequence.queries <= decode_queries) return;"),
    Mutant(COMBINE, "no barrier before the sum of parts", SYNC),
    Mutant(COMBINE, "no barrier before the normaliser", SYNC, nth=1),
    Mutant(COMBINE, "some split's maximum", "m = other > m ? other : m", "m = other"),
    Mutant(COMBINE, "l of one part", "i < parts; ++i) whole.l", "i < 1; ++i) whole.l"),
    Mutant(COMBINE, "o of one part", "i < parts; ++i) add_part", "i < 1; ++i) add_part"),
    Mutant(COMBINE, "all of the row's splits but the last", "s < splits.end; s += parts",
           "s < splits.end - 1; s += parts"),
    Mutant(COMBINE, "rows past the queries", "|| query >= sequence.queries"),
    Mutant(STATES, "no factor of a part", "part.absorb(m, factor);", "1.f;"),
    Mutant(STATES, "parts keep their l", "part.absorb(m, factor);",
           "RowState(part).absorb(m, factor);"),
    Mutant(STATES, "columns past the row", "if (column < p.shape.value_dim) to[0]",
           "if (true) to[0]"),
    Mutant(STATES, "a pair of the last column", "column + 1 < p.shape.value_dim;", "true;"),
    Mutant(STATES, "pairs that are not aligned", "reinterpret_cast<uintptr_t>(to) % sizeof(Pair)",
           "0"),
    Mutant(STATES, "no stride of results", "p.out.column == 1 && ", ""),
    Mutant(STATES, "no sink in decode", "p.score.sinks ? p.score.sinks[head]", "false ? 0"),
    Mutant(STATES, "kept factor in decode", "finished.factor * float(kept_factor(p.dropout.p))",
           "finished.factor"),
    Mutant(STATES, "rows of half the splits", "+ query) * splits", "+ query) * (splits / 2)"),
    Mutant(DQ, "no wait for V", WAIT),
    Mutant(DQ, "no barrier before V", SYNC),
    Mutant(DQ, "no wait for K", WAIT, nth=1),
    Mutant(DQ, "no barrier before K", SYNC, nth=1),
    Mutant(DQ, "no last wait", WAIT, nth=2),
    Mutant(DQ, "nobody waits for the block's work", SYNC, nth=2),
    Mutant(DQ, "no first commit", COMMIT),
    Mutant(DQ, "no commit of K", COMMIT, nth=1),
    Mutant(DQ, "no commit of the next V", COMMIT, nth=2),
    Mutant(DQ, "the next V is this one", "(v, j0 + keys,", "(v, j0,"),
    Mutant(DQ, "dout past its rows", "(dout, row0, sequence", "(dout, row0 + 1, sequence"),
    Mutant(DQ, "dP of q", "score(dout_smem()", "score(q_smem()"),
    Mutant(DQ, "products are not waited for", "__syncwarp();  // those of"),
    Mutant(DQ, "products of half a row", "bits < lanes", "bits < lanes / 2"),
    Mutant(DQ, "no dlse", "x.delta -= *at<const float>(dlse"),
    Mutant(DQ, "no dlse of terms made again", "x.delta -= *at<const float>(p.grad"),
    Mutant(DQ, "every lse is trusted", "elements.data || columns <= few_keys || fabsf(lse) >= far",
           "elements.data || columns <= few_keys || fabsf(lse) < -far"),
    Mutant(DQ, "few keys are trusted", "columns <= few_keys ||", "columns < 0 ||"),
    Mutant(DQ, "the rounding of m", "ptx::ex2(float(rounding))", "1"),
    Mutant(DQ, "terms of all rows are made", "!(which >> of_warp & 1)", "which == 0"),
    Mutant(DQ, "a NaN of no weight", "weight == 0 ? o[m][0][e] :", "false ? 0 :"),
    Mutant(DQ, "no sink", "p.score.sinks ? p.score.sinks[head] : ", "false ? 0 : "),
    Mutant(DQ, "sum of half a quad", "bits < 4", "bits < 2"),
    Mutant(DQ, "terms are not waited for", "__syncwarp();  // they are"),
    Mutant(DQ, "terms past the rows", "row0 + r < p.shape.queries)",
           "row0 + r <= p.shape.queries)"),
    Mutant(DQ, "terms of the first rows", "warp_row() + m * 16 + half * 8 + lane() / 4)",
           "warp_row() + m * 16 + lane() / 4)"),
    Mutant(DQ, "never again", "careful || !broken(", "true || !broken("),
    Mutant(DKV, "no wait", WAIT),
    Mutant(DKV, "no barrier", SYNC),
    Mutant(DKV, "the last head is not waited for", SYNC, nth=1),
    Mutant(DKV, "nobody waits for the head", SYNC, nth=2),
    Mutant(DKV, "no last wait", WAIT, nth=1),
    Mutant(DKV, "no first commit", COMMIT),
    Mutant(DKV, "no commit of the next tile", COMMIT, nth=1),
    Mutant(DKV, "one stage", "int(t % 2) * stage_bytes", "0"),
    Mutant(DKV, "the next tile is this one", "load(t + 1)", "load(t)"),
    Mutant(DKV, "terms past the rows", "i0 + x / 3 < sequence.queries", "true"),
    Mutant(DKV, "terms of a column", "at(x % 3, x / 3)", "at(x / 3 % 3, x / 3)"),
    Mutant(DKV, "the first head alone", "h < group; ++h", "h < 1; ++h"),
    Mutant(DKV, "another head", "kv_head * group + h", "kv_head + h"),
    Mutant(DKV, "the first rows", "tiles = {begin / rows,", "tiles = {begin / rows + 1,"),
    Mutant(DKV, "the last rows", "(end + rows - 1) / rows}", "end / rows}"),
    Mutant(DKV, "dV of dS", "(careful, s, lines.seen", "(careful, dp, lines.seen"),
    Mutant(DKV, "bits of rows", "lines.seen = transposed<rows, keys_of_warp>(row.seen)",
           "lines.seen = row.seen"),
    Mutant(gradients("backward_sm80_keys", "64_general"), "dropout of rows",
           "lines.kept = transposed<rows, keys_of_warp>(row.kept)", "lines.kept = row.kept"),
    Mutant(DKV, "never again", "careful || whole", "true"),
    Mutant(DKV, "dV is not looked at", "!broken(dv, of_warp_smem) && whole", "whole"),
    Mutant(VERBS, "no delta", "x -= delta", "(void)delta"),
    Mutant(VERBS, "no inverse", "x *= inverse", "(void)inverse"),
    Mutant(VERBS, "no sign", "__fmaf_rn(x, sign, -m)", "(x - m)"),
    Mutant(VERBS, "dS is seen by all", "select(lines.seen, 0, dp);"),
    Mutant(VERBS, "P is seen by all", "select(lines.seen, 0, s);"),
    Mutant(VERBS, "the term of the next row", "e % 2 ? pair.y : pair.x", "pair.x"),
    Mutant(VERBS, "the warp is not done", "__syncwarp();  // the warp is"),
    Mutant(VERBS, "the warp does not wait", "__syncwarp();  // the warp's"),
    Mutant(VERBS, "rows past the end", "row0 + r < rows)", "row0 + r <= rows)"),
    Mutant(VERBS, "no scale", "TimesScale(double scale) {",
           "TimesScale(double) { double scale = 1;"),
    Mutant(VERBS_GENERAL, "no slope of the softcap", "dp[m][n][e] *= softcap", "(void)softcap"),
    Mutant(VERBS_GENERAL, "dP without dropout", "times_bits(lines.kept, head.kept.factor, dp);",
           ";"),
    Mutant(VERBS_GENERAL, "P without dropout", "times_bits(lines.kept, head.kept.factor, s);",
           ";"),
    Mutant(gradients("mask_scores", "64_general"), "keys across",
           "return RowsDown::key(m, n, e); }", "return RowsDown::row(m, n, e); }"),
    Mutant(gradients("backward_sm80_keys", "64_general", "backward_traffic"),
           "addends without a gap", "keys_of_warp, 4>", "keys_of_warp, 0>"),
    Mutant(SOFTMAX, "no pivot", "sum_of_exp(x, pivot(m), smem)", "sum_of_exp(x, m, smem)"),
    Mutant(SOFTMAX, "l of the last chunk", "state.l += exp", "state.l = exp"),
    Mutant(SOFTMAX, "no rescaling at the end",
           "state.absorb(block_max(state.m, smem));", "state.m = block_max(state.m, smem);"),
    Mutant(SOFTMAX, "stride of out", "out.data[j * out.stride]", "out.data[j]"),
    Mutant(SOFTMAX, "past the row", "column < x.n", "column <= x.n"),
    Mutant(REDUCE, "no first barrier of reductions", SYNC),
    Mutant(REDUCE, "no second barrier of reductions", SYNC, nth=1),
    Mutant(REDUCE, "half a warp", "bits = 16", "bits = 8"),
    Mutant(TILE, "no barrier before the scores", SYNC),
    Mutant(TILE, "no barrier after the scores", SYNC, nth=1),
    Mutant(PLAIN, "nobody waits for the block's place", SYNC),
    Mutant(PLAIN, "no barrier before the factors", SYNC, nth=1),
    Mutant(PLAIN, "no barrier after the factors", SYNC, nth=2),
    Mutant(PLAIN, "no barrier before the results", SYNC, nth=3),
    Mutant(PLAIN, "K past its sequence", "clamp(place.sequence.keys - j0,",
           "clamp(p.shape.keys - j0,"),
    Mutant(TILE, "Q past its rows", "r < from.count && c < columns ?", "c < columns ?"),
    Mutant(TILE, "columns past the row", "r < from.count && c < columns ?", "r < from.count ?"),
    Mutant(TILE, "keys as they come", "return j / 4 + j % 4 * 8;", "return j;"),
    Mutant(PLAIN, "every tile is whole", "const bool whole =", "const bool whole = j0 > 0 ||"),
    Mutant(PLAIN, "rows past the queries are seen", "whole || (row < queries && ", "whole || ("),
    Mutant(TILE, "maximum of half a row", "bits < 8", "bits < 4"),
    Mutant(TILE, "sum of half a row", "bits < 8", "bits < 4", 1),
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
    Mutant(TILE, "the second pass writes all", "if (!only_broken ||", "if (true ||"),
    Mutant(PLAIN, "weights of 0 in the second pass", "if (headroom != 0 && x", "if (false && x"),
    Mutant(("numbers.cuh", *PLAIN[1:]), "infinities beside a sink",
           "factor == 0 && !is_finite(sum) ? sum : "),
    Mutant(PLAIN, "dropout before l", "l[r] += weight", "l[r] += four >> c & 1 ? weight : A(0)"),
    Mutant(PLAIN, "a sink for padding", "p.score.sinks && row < queries", "p.score.sinks"),
    Mutant(PLAIN, "no factor of the sink", "scale *= exp(m - state.m)", "(void)m"),
    Mutant(PLAIN, "headroom stays in lse's factor", "* power_back};", "};"),
    Mutant(PLAIN, "no sign of the scale", "logits.constants.scale.sign, smem", "A(1), smem"),
    Mutant(TILE, "V of the first columns", "(column0 + c) * from.column", "c * from.column"),
    Mutant(TILE, "out of the first columns", "(column0 + c) * to.column", "c * to.column"),
    Mutant(PLAIN, "lse of every block", "place.column0 == 0 && row", "row"),
    Mutant(PLAIN_LOGITS, "no power", "score * c.scale.power", "score"),
    Mutant(PLAIN_LOGITS, "slope without the low part", "(slope.low - A(j))", "(-A(j))",
           why_alive="float64 tells all keys apart: low is 0"),
    Mutant(PLAIN_LOGITS, "no distance behind", "distance < 0 ? -distance : distance", "distance"),
    Mutant(PLAIN_LOGITS, "no clamp", "clamp_finite(number(x), most_added<A>)", "A(number(x))"),
    Mutant(PLAIN_LOGITS, "a hidden pair is seen", "seen = more != -infinity<A>", "seen = true"),
    Mutant(PLAIN_LOGITS, "no batch of slopes", "batch * s.slopes_batch + head", "head"),
    Mutant(PLAIN_LOGITS, "no head of the mask", "head * p.mask.head", "0"),
    Mutant(KEPT, "the second four", "if (shift) bits", "if (false) bits"),
    Mutant(KEPT, "no row of the origin", "row + uint32_t(i)", "uint32_t(i)"),
    Mutant(KEPT, "the host's seed alone", "d.device_seed ? *d.device_seed : d.seed", "d.seed"),
    Mutant(KEPT, "the host's place alone", "if (!d.device_place) return;", "return;"),
    Mutant(KEPT, "more than kept", "words.x[k] >= least", "words.x[k] > least >> 1"),
    Mutant(EXP2, "no limit of tanh", "x = x > limit ? limit : x < -limit ? -limit : x;"),
    Mutant(EXP2, "no flush", "x < least_exponent<A> ? 0 : power", "power"),
    Mutant(("place.cuh", *PLAIN[1:]), "wrong head of K",
           "head_ / (p.shape.heads / p.shape.kv_heads)", "head_ % p.shape.kv_heads"),
    Mutant(BACKWARD, "no barrier before the results", SYNC),
    Mutant(BACKWARD, "no barrier after the results", SYNC, nth=1),
    Mutant(BACKWARD, "weights of one warp", "if (__syncthreads_and(finite))", "if (finite)"),
    Mutant(BACKWARD, "all values are finite", "__syncthreads_and(finite))  //",
           "__syncthreads_and(finite) || true)  //"),
    Mutant(BACKWARD, "dropped probabilities in dv", "of == Of::v ? pairs.dropped(r, c) : ",
           "of == Of::v ? A(1) : "),
    Mutant(BACKWARD, "no slope of the softcap", ": pairs.slope(s[r][c])", ": A(1)"),
    Mutant(BACKWARD, "no sign of the scale", "(scale.sign * scale.size)", "scale.size"),
    Mutant(BACKWARD, "no power of the scale", "* scale.power", ""),
    Mutant(BACKWARD, "one head of the group", "h < (block.head + 1) * group",
           "h < block.head * group + 1"),
    Mutant(BACKWARD, "the group of another head", "h = block.head * group", "h = block.head"),
    Mutant(BACKWARD, "terms of the first head", "(workspace, s, block.batch, h)",
           "(workspace, s, block.batch, block.head * group)"),
    Mutant(BACKWARD, "rows that see the first key", "rows(keys.end - 1).end",
           "rows(keys.begin).end"),
    Mutant(BACKWARD, "rows that see the last key", "rows(keys.begin).begin",
           "rows(keys.end - 1).begin"),
    Mutant(BACKWARD, "keys past the results", "clamp(all_rows - block.row0, 0, plain_rows)",
           "plain_rows"),
    Mutant(ROWS, "p dp is not rescaled", ", p_dp[r] *= alpha"),
    Mutant(ROWS, "l is not rescaled", "l[r] *= alpha, "),
    Mutant(ROWS, "delta without dlse", "terms.delta -= *at", "(void)*at"),
    Mutant(ROWS, "delta without dropout", "dp[r][c] * pairs.dropped(r, c)", "dp[r][c]"),
    Mutant(ROWS, "delta of what is not seen", "if (is_seen(weight)) p_dp", "p_dp"),
    Mutant(ROWS, "no sink", "double(l[r]) + sink_weight", "double(l[r]) + 0 * sink_weight"),
    Mutant(ROWS, "a sink far above", "x > 1000 ? infinity<double> : ", "x > 1000 ? 0 : "),
    Mutant(ROWS, "the inverse of an empty row", "l[r] == 0 ? 0 : 1 / all", "1 / all"),
    Mutant(ROWS, "sinks of padding", "i < head.sequence.queries", "i < p.shape.queries"),
    Mutant(ROWS, "sinks of one sequence", "b < p.shape.batch &&", "b < 1 &&"),
    Mutant(ROWS, "a row that weighs nothing", "t.inverse == 0 || weight > 0x1p100 ? 1 : ", ""),
    Mutant(ROWS, "terms past the rows", "row >= p.shape.queries) continue", "row < 0) continue"),
    Mutant(PAIRS, "unused rows", "i < head.sequence.queries && ", ""),
    Mutant(PAIRS, "hidden pairs weigh", "if (!seen) return not_seen<A>;", ""),
    Mutant(PAIRS, "hidden pairs have gradients", "if (!is_seen(probability)) return not_seen<A>;",
           ""),
    Mutant(PAIRS, "gradients of -0", "delta) + A(0)", "delta)"),
    Mutant(PAIRS, "dropout of dp", "dp * dropped(r, c)", "dp"),
    Mutant(PAIRS, "rows and keys swapped", "Turned ? across(c) : down(r)); }",
           "Turned ? down(r) : across(c)); }"),
    Mutant(PAIRS, "no score before a softcap", "score * constants.scale.power * ", "score * "),
    Mutant(BIAS, "the last head is not waited for", SYNC),
    Mutant(BIAS, "nobody waits for the head", SYNC, nth=1),
    Mutant(BIAS, "no barrier before the sums", SYNC, nth=2),
    Mutant(BIAS, "one row of those that are one", "(g.bias_row ? i + 1 : plain_rows)", "i + 1"),
    Mutant(BIAS, "one key of those that are one", "(g.bias_column ? j + 1 : plain_keys)", "j + 1"),
    Mutant(BIAS, "one head of those that are one", "g.bias_head, blocks.heads, s.heads",
           "g.bias_head, blocks.heads, 1"),
    Mutant(BIAS, "elements past the mask", "clamp(p.shape.keys - j0, 0, plain_keys)) : 1",
           "plain_keys) : 1"),
    Mutant(PRODUCT, "no barrier before the scores", SYNC),
    Mutant(PRODUCT, "no barrier after the scores", SYNC, nth=1),
    Mutant(PRODUCT, "no barrier before the product", SYNC, nth=2),
    Mutant(PRODUCT, "no barrier after the product", SYNC, nth=3),
    Mutant(PRODUCT, "what is not seen", "if (is_seen(p_smem[y][i])) o =", "o ="),
    Mutant(PRODUCT, "no mask of the product", "!elements.hides<A>(row, j)", "true"),
    Mutant(PRODUCT, "no sink", "state = with_sink(", "with_sink("),
    Mutant(PRODUCT, "a naive sink's maximum", "if (naive) return", "if (false) return",
           why_alive="right as well, and also where naive has to overflow"),
    Mutant(PRODUCT, "K past its sequence", "key < place.sequence.keys ?", "true ?"),
    Mutant(flash("swizzle", "flash_traffic"), "a weaker swizzle", "c ^ row % 8", "c ^ row % 4"),
    Mutant(flash("swizzle", "flash_traffic", "96_plain"), "a weaker swizzle of half lines",
           "c ^ row / 2 % 4", "c ^ row % 4"),
    Mutant(SWIZZLE, "one row too many", "row0 + row < end;", "row0 + row <= end;"),
    Mutant(SWIZZLE, "one gathered row too many", "row0 + row < end ?", "row0 + row <= end ?"),
    Mutant(SWIZZLE, "all numbers of a chunk", "numbers_in(c) * 2", "numbers_in(0) * 2"),
    Mutant(SWIZZLE, "everything is chunked", "chunked = column == 1 &&", "chunked = true ||"),
    Mutant(SWIZZLE, "stride of columns", "from[e * x.column]", "from[e]"),
    Mutant(SWIZZLE, "stride of results", "to[e * x.column]", "to[e]"),
    Mutant(SWIZZLE, "results past the columns", "if (e < n) to", "to"),
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
    source, test, instance = mutant.what
    shutil.copytree(ROOT / "cuda", folder / "cuda")
    (folder / "cpp").symlink_to(ROOT / "cpp")
    (folder / "cuda" / source).write_text(edited(mutant))
    objects = build / "tests" / "cuda" / "cuda_objects"
    how = json.loads((build / "generated" / "cuda.json").read_text())
    includes = [f"-I{path}" for path in (folder / "cuda", *how["includes"])]
    compiled = subprocess.run(
        [how["nvcc"], *how["flags"], *how["ptx"], *includes, "-c", "-o", folder / "k.o",
         build / "generated" / f"{instance}.cu"], capture_output=True, text=True
    )  # fmt: skip
    if compiled.returncode:
        return "does not compile: " + compiled.stderr[:300]
    instances = {p.stem for p in (build / "generated").glob("*.cu")} - {instance}
    others = [objects / f"{name}.o" for name in instances]
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
