"""All that is known of one kernel on one machine: names with numbers."""

import re
from collections import Counter
from dataclasses import dataclass, field

from . import flow
from .machines import MACHINES, WARP, blocks_per_multiprocessor, bound, memory
from .sass import MEMORY, PIPES

PRODUCTS = ("FFMA", "DFMA")
WIDTH = re.compile(rf"({'|'.join(MEMORY)})\.(8|16|32|64|128)$")


@dataclass
class Figures:
    kernel: str
    machine: str
    numbers: dict[str, float | None]  # None: not known
    advisories: list[str] = field(default_factory=list)
    limit: str = ""  # the pipe that sets the bound

    def __getitem__(self, name):
        return self.numbers.get(name, 0) if WIDTH.match(name) else self.numbers[name]


def of_loop(kernel, machine):
    """Figures of the main loop: with tensor instructions if the kernel has any, else with
    products. And the pipe that sets its bound."""
    tensor = any(i.pipe == "tensor" for i in kernel.instructions)

    def is_work(i):
        return i.pipe == "tensor" if tensor else i.stem in PRODUCTS

    graph = flow.blocks(kernel)
    loop = flow.main_loop(graph, is_work)
    least = flow.lightest_pass(graph, loop, is_work) if loop else []
    pipes, work = Counter(i.pipe for i in least), sum(map(is_work, least))
    percent, limit = bound(MACHINES[machine], least) if loop else (None, "")
    numbers = {
        "work": work,
        "others": (len(least) - work) / work if work else None,
        "bound": percent,
        "memory": memory(MACHINES[machine], least) if loop else None,
        "peak": MACHINES[machine].tensor,  # multiplications per clock of a multiprocessor
        "pass": len(least),
        "loop": sum(len(graph[n].instructions) for n in loop.body) if loop else 0,
    }
    return numbers | {f"loop_{pipe}": pipes[pipe] for pipe in PIPES}, limit


def of(name, machine, resources, kernel, launches):
    """launches: the most dynamic shared memory of each kernel in the tests; None: no test ran, and
    it is not counted."""
    dynamic = 0 if launches is None else launches.get(name)
    shared = None if dynamic is None else resources.static_shared + dynamic
    blocks = kernel.threads and blocks_per_multiprocessor(
        MACHINES[machine], kernel.threads, resources.registers, shared or 0
    )
    loop, limit = of_loop(kernel, machine)
    tensor = [i for i in kernel.instructions if i.pipe == "tensor"]
    numbers = {
        "registers": resources.registers,
        "spill_bytes": resources.spill_bytes,
        "stack_bytes": resources.stack_bytes,
        "static_shared": resources.static_shared,
        "dynamic_shared": dynamic,
        "shared": shared,
        "threads": kernel.threads,
        "blocks": blocks,
        "warps": blocks and blocks * -(-kernel.threads // WARP),
        "advisories": len(resources.advisories),
        "tensor": len(tensor),
        "unknown_tensor": sum(i.multiplications is None for i in tensor),
        "local": sum(i.pipe == "local" for i in kernel.instructions),
        "code_bytes": kernel.code_bytes,
    }
    widths = Counter(f"{i.stem}.{i.bits}" for i in kernel.instructions if i.stem in MEMORY)
    return Figures(name, machine, numbers | loop | widths, resources.advisories, limit)
