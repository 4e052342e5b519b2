"""For people: of each machine what the kernels take, and what one pass of their main loops does."""

from .figures import WIDTH
from .machines import MACHINES

TAKES = {
    "registers": "regs",
    "shared": "shared",
    "blocks": "blocks",
    "warps": "warps",
    "code_bytes": "code",
    "work": "work",
    "others": "others",
    "bound": "bound",
    "limit": "by",
}
PASS = {
    "loop": "code",
    "pass": "pass",
    "loop_tensor": "tensor",
    "loop_mufu": "mufu",
    "loop_fp32": "fp32",
    "loop_fp64": "fp64",
    "loop_alu": "alu",
    "loop_shuffle": "shfl",
    "loop_shared": "shared",
    "loop_global": "global",
    "loop_local": "local",
    "loop_sync": "sync",
}
LEGEND = """\
shared, code: bytes. blocks, warps: of a multiprocessor. work: tensor instructions of the main loop;
where a kernel has none, its products. others: instructions for each of these. bound: percent of the
peak of the tensor cores (else of products) when everything overlaps, and the pipe that sets it.
One pass: all instructions of the loop; those of the pass in which work has the largest share (rare
cases are not in it, nor copies in which a warp has no part); and how many go to which pipe."""


def shown(figures, name):
    if name == "limit":
        return figures.limit
    figure = figures[name]
    if figure is None:
        return "?"
    return f"{figure:.0f} %" if name == "bound" else f"{figure:.4g}" if figure % 1 else f"{figure}"


def widths(figures):
    return "  ".join(
        f"{n} {name}" for name, n in sorted(figures.numbers.items()) if WIDTH.match(name)
    )


def width(column):
    return max(map(len, column))


def plain(title, rows):
    print(f"\n{title}")
    wide = [width(column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{x:>{w}}" for x, w in zip(row[1:], wide[1:], strict=True))
        print(f"{row[0]:<{wide[0]}}  {'  '.join(cells)}")


def coloured(title, rows):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if sum(width(column) + 2 for column in zip(*rows, strict=True)) + 2 > console.width:
        return plain(title, rows)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for n, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if n else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    return None


def show(every_kernels_figures, rich):
    one = coloured if rich else plain
    for machine in MACHINES:
        of_machine = [f for f in every_kernels_figures if f.machine == machine]
        if not of_machine:
            continue
        for title, columns in ((machine, TAKES), (f"{machine}, one pass of the main loop", PASS)):
            rows = [[f.kernel, *(shown(f, name) for name in columns)] for f in of_machine]
            one(title, [["kernel", *columns.values()], *rows])
        print(f"\n{machine}, accesses by width in bits")
        for f in of_machine:
            print(f"{f.kernel}: {widths(f)}")
    print(f"\n{LEGEND}")
