"""For people: a row for each kernel, a table for each machine."""

from .figures import WIDTH
from .machines import MACHINES

COLUMNS = {
    "registers": "regs",
    "shared": "shared",
    "blocks": "blocks",
    "warps": "warps",
    "code_bytes": "code",
    "work": "work",
    "others": "others",
    "pass": "pass",
    "loop": "loop",
    "loop_mufu": "mufu",
    "loop_fp32": "fp32",
    "loop_fp64": "fp64",
    "loop_alu": "alu",
    "loop_shared": "shared",
    "loop_global": "global",
    "loop_sync": "sync",
}
LEGEND = """\
shared, code: bytes. blocks, warps: of a multiprocessor. work: tensor instructions of the main loop;
where a kernel has none, its products. others: instructions for each of these. pass: the least that
a warp executes in one pass of the loop (copies in which it has no part are not in it), and then how
many of these go to which pipe; loop: all its code. bound: percent of the peak of the tensor cores
(else of products) when everything overlaps, and what sets it."""


def shown(figures, name):
    figure = figures[name]
    return "?" if figure is None else f"{figure:.2f}" if isinstance(figure, float) else f"{figure}"


def row(figures):
    percent = figures["bound"]
    bound = "" if percent is None else f"{percent:.0f} % {figures.limit}"
    return [figures.kernel, *(shown(figures, name) for name in COLUMNS), bound]


def widths(figures):
    return "  ".join(
        f"{n} {name}" for name, n in sorted(figures.numbers.items()) if WIDTH.match(name)
    )


def plain(header, rows):
    wide = [max(len(r[c]) for r in [header, *rows]) for c in range(len(header))]
    for r in [header, *rows]:
        cells = (f"{x:>{w}}" for x, w in zip(r[1:], wide[1:], strict=True))
        print(f"{r[0]:<{wide[0]}}  {'  '.join(cells)}")


def coloured(title, header, rows):
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for n, name in enumerate(header):
        table.add_column(name, justify="right" if n else "left", overflow="fold")
    for r in rows:
        table.add_row(*r)
    Console().print(table)


def show(every_kernels_figures, rich):
    header = ["kernel", *COLUMNS.values(), "bound"]
    for machine in MACHINES:
        of_machine = [f for f in every_kernels_figures if f.machine == machine]
        if not of_machine:
            continue
        rows = [row(f) for f in of_machine]
        if rich:
            coloured(machine, header, rows)
        else:
            print(f"\n{machine}")
            plain(header, rows)
        print("accesses by width in bits:")
        for f in of_machine:
            print(f"  {f.kernel}: {widths(f)}")
    print(LEGEND)
