"""Which kernel crosses which limit of thresholds.toml. A kernel that no family has is wrong, too:
somebody must say what is expected of it."""

import sys
from fnmatch import fnmatchcase

from .figures import WIDTH

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RULES = {
    "at_most": (lambda figure, limit: figure <= limit, "at most {:g} is allowed"),
    "at_least": (lambda figure, limit: figure >= limit, "at least {:g} is wanted"),
}
UNKNOWN = dict.fromkeys(("threads", "blocks", "warps"), "it has no __launch_bounds__")
UNKNOWN |= dict.fromkeys(("dynamic_shared", "shared"), "no test launches it")


class Malformed(Exception):
    pass


def read(path):
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Malformed(f"{path}: {error}") from None
    families = found.get("family", [])
    if not isinstance(found.get("every"), dict) or not families:
        raise Malformed(f"{path} has no [every] or no [[family]]")
    for family in [found["every"], *families]:
        wrong = set(family) - {"name", "kernels", *RULES}
        if wrong:
            raise Malformed(f"{path}: {family} has {', '.join(sorted(wrong))}")
    for family in families:
        if not isinstance(family.get("kernels"), list) or "name" not in family:
            raise Malformed(f"{path}: a [[family]] needs a name and a list of kernels: {family}")
    return found


def crossed(family, figures):
    """In words."""
    for rule, (holds, words) in RULES.items():
        for name, limit in family.get(rule, {}).items():
            if isinstance(limit, dict):
                if figures.machine not in limit:
                    continue
                limit = limit[figures.machine]
            if name not in figures.numbers and not WIDTH.match(name):
                yield f"a threshold is of {name!r}, which is no figure"
                continue
            figure, where = figures[name], f"{figures.kernel} on {figures.machine}"
            if figure is None:
                yield f"{where}: {name} is not known ({UNKNOWN.get(name, 'it has no such loop')})"
            elif not holds(figure, limit):
                yield f"{where}: {name} is {figure:g}, {words.format(limit)}"


def judge(thresholds, every_kernels_figures):
    """The list of complaints."""
    complaints = []
    for figures in every_kernels_figures:
        complaints += crossed(thresholds["every"], figures)
        complaints += [f"{figures.kernel} on {figures.machine}: {a}" for a in figures.advisories]
        families = [
            f
            for f in thresholds["family"]
            if any(fnmatchcase(figures.kernel, pattern) for pattern in f["kernels"])
        ]
        if families:
            complaints += crossed(families[0], figures)
        else:
            complaints.append(
                f"{figures.kernel} on {figures.machine}: no family of the thresholds has it, "
                "add one or widen a pattern"
            )
    return list(dict.fromkeys(complaints))
