"""The one judgement of closeness. Every element is compared, none is sampled.

plain(dtype) is attention with the scores, the probabilities and the output each rounded to the
dtype and the products accumulated in float32 (float64 for float64): what a careful reader of the
formula would write. A result may err at most twice as much as that anywhere, and a quarter more on
average, plus a floor: one unit in the last place of the output at the largest |v| that the row
sees, and four roundings of the accumulator at that size. Gradients are held to the same, with the
largest term that they are summed from in place of |v|. On average, where plain rounds nothing, an
eighth of the floor is allowed to outputs, and a quarter to gradients, which are made of an lse that
was rounded.
"""

import math
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import oracle
import oracle_gradients

DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


def accumulator(dtype):
    return DTYPES["float64" if np.dtype(dtype) == np.float64 else "float32"]


def ulp(x, dtype):
    """The distance of two neighbouring numbers of dtype at |x|."""
    info = ml_dtypes.finfo(dtype)
    exponent = np.frexp(np.abs(np.asarray(x, np.float64)))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp) - info.nmant)


def eps(dtype):
    return float(ml_dtypes.finfo(accumulator(dtype)).eps)


def rows_floor(largest, out_dtype, dtype):
    """What any result may err by, in rows that see values up to `largest`."""
    return ulp(largest, out_dtype) + 4 * eps(dtype) * np.asarray(largest, np.float64)


def plain_arithmetic(dtype, **others):
    """How plain computes: what is rounded to another dtype than this one stands by its name."""

    def rounded(x, what):
        low = x.astype(others.get(what, dtype)).astype(x.dtype)
        # Beyond float16's range they are kept: infinities would judge nothing.
        return np.where(np.isfinite(low), low, x) if what in ("scores", "ds") else low

    return {"compute": accumulator(dtype).type, "rounded": rounded}


def plain(query, key, value, out_dtype=None, **options):
    arithmetic = plain_arithmetic(query.dtype, output=out_dtype or query.dtype)
    return oracle.attention(query, key, value, **arithmetic, **options)


def plain_gradients(query, key, value, dout, dtypes, **options):
    """dtypes: of the results, by name. dp is as a product of matrices leaves it."""
    arithmetic = plain_arithmetic(query.dtype, dp=accumulator(query.dtype), **dtypes)
    return oracle_gradients.gradients(query, key, value, dout, **arithmetic, **options)


def same_specials(got, exact, what):
    """NaN and infinities stand in exactly the places where they belong."""
    for name, test in ("NaN", np.isnan), ("inf", np.isposinf), ("-inf", np.isneginf):
        wrong = test(got) != test(exact)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            raise AssertionError(
                f"{what}: {name} in {wrong.sum()} wrong places, the first at {at}: "
                f"got {got[at]}, expected {exact[at]}"
            )


def distance(a, b):
    """|a - b| where b is finite, else 0."""
    return np.abs(np.subtract(a, b, where=np.isfinite(b), out=np.zeros_like(b)))


def within(error, allowed, what):
    over = error - allowed
    if over.size and not over.max() <= 0:
        worst = error.flat[over.argmax()]
        raise AssertionError(
            f"{what}: {(over > 0).sum()} of {over.size} elements err too much, the worst by "
            f"{worst:.3g}, where {worst - over.max():.3g} is allowed"
        )


@dataclass
class Ratio:
    """Errors of a result over those of plain; None where plain makes none."""

    maximum: float | None = None
    mean: float | None = None


@dataclass
class Errors:
    """What a result, and plain, err by in every element of one problem; of one draw of its numbers
    or of several, for a problem of few rows says little about rounding."""

    what: str
    average: float = 1 / 8  # of the floor
    fewest: int = 1  # errors whose mean is judged
    drawn: list = field(default_factory=list)  # (error, plain's error, floor), flat

    def add(self, got, exact, plain, floor):
        got, exact = np.asarray(got), np.asarray(exact)
        assert got.shape == exact.shape, f"{self.what}: shape {got.shape}, expected {exact.shape}"
        got = got.astype(exact.dtype)
        same_specials(got, exact, self.what)
        floor = np.broadcast_to(floor, exact.shape)
        by_hand = distance(plain.astype(exact.dtype), exact)
        assert np.isfinite(by_hand).all(), f"{self.what}: plain overflows: this judges nothing"
        self.drawn.append([x.ravel() for x in (distance(got, exact), by_hand, floor)])

    def judge_alone(self):
        """Without plain: every error is within its floor."""
        for error, _, floor in self.drawn:
            within(error, floor, self.what)

    def judge(self):
        """The rule for outputs. Raises AssertionError, or returns the Ratio to plain."""
        error, by_hand, floor = map(np.concatenate, zip(*self.drawn, strict=True))
        if not error.size:
            return Ratio()
        largest, mean_plain, mean = by_hand.max(), by_hand.mean(), error.mean()
        within(error, 2 * largest + floor, f"{self.what} (plain: {largest:.3g})")
        most = 1.25 * mean_plain + floor.mean() * self.average
        assert mean <= most or error.size < self.fewest, (
            f"{self.what}: mean error {mean:.3g}, where {most:.3g} is allowed "
            f"(plain: {mean_plain:.3g})"
        )
        if not largest:
            return Ratio()
        return Ratio(float(error.max() / largest), float(mean / mean_plain))


@dataclass
class Judgement:
    """Judges fanano.attention: add() each draw of a problem, then verdict()."""

    what: str = ""
    against_plain: bool = True  # float64 is judged on its own

    def __post_init__(self):
        self.out, self.lse = Errors(f"{self.what}: out"), Errors(f"{self.what}: lse")

    def add(self, out, lse, query, key, value, *, out_dtype=None, **options):
        dtype, layout = query.dtype, options.get("layout", "bhsd")
        out_dtype = np.dtype(out_dtype or dtype)
        exact = oracle.attention(query, key, value, **options)
        out = np.asarray(out)
        assert out.dtype == out_dtype, f"{self.what}: out is {out.dtype}, expected {out_dtype}"
        expected = oracle.as_given(exact.out, query.ndim, layout).shape
        assert out.shape == expected, f"{self.what}: out has shape {out.shape}, expected {expected}"
        out = oracle.four_dims(out, layout)
        assert (out[exact.empty] == 0).all(), f"{self.what}: a row that sees nothing is not zeros"
        self.against_plain = dtype != np.float64
        # What dropout keeps is larger.
        seen = exact.seen / max(1 - options.get("dropout_p", 0), 1 / 64)
        # 1e-12 for logits up to 1e3; what lies above them has lost digits in proportion.
        tight = 1e-12 * np.maximum(1, exact.logit / 1e3)
        if self.against_plain:
            by_hand = plain(query, key, value, out_dtype=out_dtype, **options).out
            floor = rows_floor(seen, out_dtype, dtype)
        else:
            by_hand, floor = exact.out, tight * seen
        self.out.add(out, exact.out, by_hand, floor[..., None])
        if lse is not None:
            self.add_lse(lse, exact, query, key, value, options)

    def add_lse(self, lse, exact, query, key, value, options):
        lse, kind = np.asarray(lse), accumulator(query.dtype)
        assert lse.dtype == kind, f"{self.what}: lse is {lse.dtype}, expected {kind}"
        expected = oracle.as_given(exact.lse, query.ndim).shape
        assert lse.shape == expected, f"{self.what}: lse has shape {lse.shape}, expected {expected}"
        size = np.maximum(1, np.abs(np.where(np.isfinite(exact.lse), exact.lse, 0)))
        floor = 1e-12 * np.maximum(size, exact.logit)
        if self.against_plain:
            floor = ulp(size, np.float32) + eps(np.float32) * exact.logit
            # Before there is a logit there is a dot product: D terms summed in float32 err by up to
            # lambda sqrt(D) u sum |q_d k_d| (Higham and Mary 2019, theorem 2.4). lambda = 2: where
            # one term leads, a standard deviation is 1 / sqrt(3), and the worst of a thousand rows
            # is met.
            floor = floor + eps(np.float32) * query.shape[-1] ** 0.5 * exact.terms
        self.lse.add(lse.reshape(exact.lse.shape), exact.lse, exact.lse, floor)

    def verdict(self):
        """Raises AssertionError, or returns the Ratio to plain."""
        self.lse.judge_alone()
        if self.against_plain:
            return self.out.judge()
        self.out.judge_alone()
        return Ratio()


def judge_attention(out, lse, query, key, value, what="", **options):
    """The judgement of a single draw."""
    judgement = Judgement(what)
    judgement.add(out, lse, query, key, value, **options)
    return judgement.verdict()


GRADIENTS = "dq", "dk", "dv", "dbias", "dsinks"


@dataclass
class GradientJudgement:
    """Judges what has these gradients: add() each draw of a problem, then verdict()."""

    what: str = ""

    def __post_init__(self):
        # Some have one number for each head: their mean is a matter of chance.
        self.errors = {name: Errors(f"{self.what}: {name}", 1 / 4, 32) for name in GRADIENTS}

    def add(self, got, query, key, value, dout, **options):
        """got.dq is None, and so on, where it was not asked for."""
        dtype, layout = query.dtype, options.get("layout", "bhsd")
        exact = oracle_gradients.gradients(query, key, value, dout, **options)
        got = {name: np.asarray(x) for name in GRADIENTS if (x := getattr(got, name)) is not None}
        for name, like in zip(GRADIENTS, (query, key, value), strict=False):
            if name in got:
                x, what = got[name], f"{self.what}: {name}"
                assert x.dtype == dtype, f"{what} is {x.dtype}, expected {dtype}"
                assert x.shape == like.shape, f"{what} has shape {x.shape}, expected {like.shape}"
                got[name] = oracle.four_dims(x, layout)
        self.against_plain = dtype != np.float64
        if self.against_plain:
            dtypes = {name: x.dtype for name, x in got.items()}
            by_hand = plain_gradients(query, key, value, dout, dtypes, **options)
            tight = 4 * eps(dtype)
        else:
            by_hand, tight = exact, 1e-12 * max(1, exact.logit / 1e3)
        for name, x in got.items():
            what, right, parts = f"{self.what}: {name}", getattr(exact, name), exact.parts[name]
            assert right is not None, f"{what} of a problem that has none"
            # The result is rounded, and before that what cancels within its terms.
            size = np.fmax(exact.term[name], np.abs(right)).astype(np.float64)
            floor = ulp(size, x.dtype) + tight * np.fmax(parts, size)
            self.errors[name].add(x, right, getattr(by_hand, name), floor)
            nothing = (right == 0) & (parts == 0)
            assert (x[nothing] == 0).all(), f"{what} is not zero where there are no terms"

    def verdict(self):
        """Raises AssertionError, or returns the Ratio to plain of each gradient that was added."""
        known = {name: errors for name, errors in self.errors.items() if errors.drawn}
        if self.against_plain:
            return {name: errors.judge() for name, errors in known.items()}
        for errors in known.values():
            errors.judge_alone()
        return dict.fromkeys(known, Ratio())


def geometric_mean(ratios):
    """Over the problems in which plain errs. One problem counts for at most a factor of 16 either
    way: the largest errors of problems with one steep row are a matter of chance."""
    known = [min(max(r, 1 / 16), 16) for r in ratios if r is not None]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else 1.0
