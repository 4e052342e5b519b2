"""What a call that succeeds must have computed. Gross errors are what is looked for: every bound is
a few times what rounding can do, and how much of that there may be is for compare.py in the tests.
"""

import compare
import ml_dtypes
import numpy as np
import oracle
import oracle_dropout
from calls import Empties

FAR = 2**40
POSITIONS = ("is_causal", "window_size", "q_offset", "q_lengths", "kv_lengths")
ORACLE = (*POSITIONS, "attn_mask", "scale", "softcap", "alibi_slopes", "sinks")


def as_array(result):
    """The elements of a result, NumPy's or a lender's."""
    return result if isinstance(result, np.ndarray) else result.array


def judge(call, result):
    """Raises AssertionError unless `result` is what the call asked for."""
    if call.kind in ("explain", "shapes"):
        assert str(result).startswith("attention forward")
        assert result.tasks >= 0
        assert result.threads >= 1
    elif all(drawn.view is not None for drawn in call.drawn.values()):
        {
            "attention": attention, "attention_backward": backward, "softmax": softmax,
            "absorb": absorb, "merge_states": merge,
        }[call.kind](call, result)  # fmt: skip


def of(call, name, otherwise=None):
    """An argument, as NumPy reads it."""
    if name in call.drawn:
        return call.drawn[name].view
    return call.arguments.get(name, otherwise)


def changed(value):
    return isinstance(value, Empties) or (isinstance(value, list) and any(map(changed, value)))


def attention(call, result):
    query, key, value = (of(call, name) for name in ("query", "key", "value"))
    layout, out_dtype = of(call, "layout"), of(call, "out_dtype")
    given = call.drawn.get("out")
    out, lse = result if of(call, "return_lse") else (result, None)
    if given is not None:
        assert out is given.given, "out is not what is returned"
        dtype = given.view.dtype
    else:
        dtype = query.dtype if out_dtype is None else np.dtype(out_dtype)
    out = given.view if given is not None else as_array(out)
    assert out.dtype == dtype, f"out is {out.dtype}, expected {dtype}"

    options = {name: of(call, name) for name in ORACLE if of(call, name) is not None}
    if any(map(changed, options.values())):
        return
    slopes = options.get("alibi_slopes")
    heads = oracle.four_dims(query, layout).shape[1]
    if slopes is not None and np.ndim(slopes) == 0:
        options["alibi_slopes"] = np.full(heads, slopes, np.float64)
    if not heads:
        options.pop("alibi_slopes", None)
    shape = (*oracle.four_dims(query, layout).shape[:3], oracle.four_dims(key, layout).shape[2])
    if far(options):
        if slopes is not None:
            return
        options = as_mask(options, shape)
    dropout_p, seed = of(call, "dropout_p", 0), of(call, "seed")
    if dropout_p:
        offset = of(call, "dropout_offset", (0, 0, 0, 0))
        if seed is None or changed(offset):  # drawn anew; anybody's guess
            return
        kept = oracle_dropout.keep(shape, dropout_p, seed, offset)
        options |= {"dropout_p": dropout_p, "keep": kept}
    exact = oracle.attention(query, key, value, layout=layout, **options)
    expected = oracle.as_given(exact.out, query.ndim, layout).shape
    assert out.shape == expected, f"out has shape {out.shape}, expected {expected}"
    out = oracle.four_dims(out, layout)
    sinks = np.abs(np.asarray(options.get("sinks", 0), np.float64))
    steep = not all((x < 1e30).all() for x in (exact.logit, exact.terms, sinks[np.isfinite(sinks)]))
    if steep:  # float32 ends here; what is a number must still not become none
        new = np.isnan(out) & ~np.isnan(exact.out)
        assert algorithm(call) == "naive" or not new.any(), "NaN out of numbers"
        return
    if algorithm(call) == "naive" and not (exact.logit < 80).all():
        return  # overflows, by definition
    wide = compare.accumulator(query.dtype)
    eps = float(np.finfo(wide).eps)
    logits = 4 * eps * (1 + exact.logit + query.shape[-1] ** 0.5 * exact.terms)
    close = exact.seen * np.expm1(np.minimum(4 * logits, 700)) + 4 * (
        compare.ulp(exact.seen, query.dtype) + compare.ulp(exact.seen, dtype)
    )
    near("out", out, exact.out, close[..., None] / max(1 - dropout_p, 1 / 64))
    if lse is not None:
        lse = as_array(lse)
        assert lse.dtype == wide, f"lse is {lse.dtype}"
        expected = oracle.as_given(exact.lse, query.ndim).shape
        assert lse.shape == expected, f"lse has shape {lse.shape}, expected {expected}"
        size = np.abs(np.where(np.isfinite(exact.lse), exact.lse, 0))
        near("lse", lse.reshape(exact.lse.shape), exact.lse, logits + 4 * eps * size)


def backward(call, result):
    """out and lse are any numbers, so only what has no gradient is known: it is exactly 0."""
    arrays = {"dq": of(call, "query"), "dk": of(call, "key"), "dv": of(call, "value")}
    for name, like in arrays.items():
        got = as_array(getattr(result, name))
        assert got.shape == like.shape, f"{name} has shape {got.shape}, expected {like.shape}"
        assert got.dtype == like.dtype, f"{name} is {got.dtype}, expected {like.dtype}"
    options = {name: of(call, name) for name in (*POSITIONS, "attn_mask")}
    options = {name: x for name, x in options.items() if x is not None}
    if any(map(changed, options.values())):
        return
    layout = of(call, "layout", "bhsd")
    dq, dk, dv = (oracle.four_dims(as_array(getattr(result, n)), layout) for n in arrays)
    shape = (*dq.shape[:3], dk.shape[2])
    may = oracle.visible(shape, **as_mask(options, shape))
    assert (dq[~may.any(-1)] == 0).all(), "dq of a row that sees nothing"
    if may.size:
        unseen = ~may.reshape(*dk.shape[:2], -1, shape[3]).any(2)
        assert (dk[unseen] == 0).all(), "dk of a key that nobody sees"
        assert (dv[unseen] == 0).all(), "dv of a key that nobody sees"


def algorithm(call):
    return call.arguments.get("algorithm", "flash")


def far(options):
    """Whether positions lie where NumPy's int64 might overflow."""
    numbers = [options.get("q_offset", 0), *(options.get("window_size") or ())]
    return any(abs(int(n)) > FAR for x in numbers if x is not None for n in np.ravel(x).tolist())


def as_mask(options, shape):
    """The same options with all that hangs on positions turned into a mask, by integers of Python,
    which have no end."""
    batch, _, rows, keys = shape

    def each(name):
        given = options.get(name)
        if given is None:
            return [None] * batch
        return np.broadcast_to(np.asarray(given), batch).tolist()

    q, k, offset = each("q_lengths"), each("kv_lengths"), each("q_offset")
    left, right = options.get("window_size") or (None, None)
    seen = np.zeros((batch, 1, rows, keys), bool)
    for b, _, i, j in np.ndindex(seen.shape):
        used_q, used_k = rows if q[b] is None else q[b], keys if k[b] is None else k[b]
        p = i + (used_k - used_q if offset[b] is None else offset[b])
        seen[b, 0, i, j] = (
            (not options.get("is_causal") or j <= p)
            and (left is None or left < 0 or j >= p - left)
            and (right is None or right < 0 or j <= p + right)
        )
    mask = options.get("attn_mask")
    if mask is None:
        mask = seen
    elif mask.dtype == bool:
        mask = mask & seen
    else:
        mask = np.where(seen, mask.astype(np.float64), -np.inf)
    kept = {n: x for n, x in options.items() if n not in ("is_causal", "window_size", "q_offset")}
    return kept | {"attn_mask": mask}


def softmax(call, result):
    x, got, axis = of(call, "x"), as_array(result), of(call, "axis")
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    naive = algorithm(call) == "naive"
    if naive and not np.isfinite(x.astype(np.float64)).all():
        return
    exact = oracle.softmax(x, axis)
    info, wide = ml_dtypes.finfo(x.dtype), np.finfo(compare.accumulator(x.dtype))
    relative = 4 * float(info.eps) + 64 * float(wide.eps)
    near("softmax", got, exact, relative * np.abs(exact) + 4 * float(info.smallest_normal))


def absorb(call, result):
    x = of(call, "scores")
    exact = float(oracle.lse(x))
    near("lse", np.float64(result.lse), np.float64(exact), 1e-5 * max(1, abs(exact)))


def merge(call, result):
    (a, la), (b, lb) = ((of(call, f"out_{s}"), of(call, f"lse_{s}")) for s in "ab")
    out, lse = map(as_array, result)
    assert out.dtype == a.dtype
    assert out.shape == a.shape
    assert lse.dtype == la.dtype
    assert lse.shape == la.shape
    a, la, b, lb = (x.astype(np.float64) for x in (a, la, b, lb))
    if not all(np.isfinite(x).all() for x in (a, la, b, lb)):
        return
    eps = float(np.finfo(compare.accumulator(out.dtype)).eps)
    exact = np.logaddexp(la, lb)
    near("lse", lse, exact, 8 * eps * (1 + np.abs(exact)))
    terms = [np.exp(x - exact)[..., None] * y for x, y in ((la, a), (lb, b))]
    size = np.abs(terms[0]) + np.abs(terms[1])
    near("out", out, sum(terms), 4 * compare.ulp(size, out.dtype) + 64 * eps * size)


def near(what, got, exact, allowed):
    got, exact = np.asarray(got).astype(np.float64), np.asarray(exact).astype(np.float64)
    compare.same_specials(got, exact, what)
    allowed = np.where(np.isfinite(exact), allowed, 0)
    compare.within(compare.distance(got, exact), allowed, what)
