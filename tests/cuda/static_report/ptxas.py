"""What ptxas -v says of each kernel."""

import re
from dataclasses import dataclass, field

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)  # fmt: skip
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
# ptxas tells of a serialized wgmma or an ignored setmaxnreg, and goes on as if nothing was.
ADVISORY = re.compile(r"\(C75\d\d\)")


@dataclass
class Resources:
    registers: int
    stack_bytes: int = 0
    spill_bytes: int = 0
    static_shared: int = 0
    advisories: list[str] = field(default_factory=list)


def parse(log, machine):
    """Resources by the kernel's mangled name, of what was compiled for that machine. An advisory
    has no machine; one that names no kernel is of all."""
    found, frames, advisories = {}, {}, []
    entry = function = this = None
    for line in log.splitlines():
        if match := ENTRY.search(line):
            entry = function = match[1]
            this = match[2] == machine
        elif ADVISORY.search(line):
            advisories.append(line.strip())
        elif not this:
            continue
        elif match := PROPERTIES.search(line):
            function = match[1]
        elif match := FRAME.search(line):
            frames[function] = [int(n) for n in match.groups()]
        elif match := USED.search(line):
            shared = SHARED.search(line)
            found[entry] = Resources(int(match[1]), static_shared=int(shared[1]) if shared else 0)
    for name, resources in found.items():
        stack, stores, loads = frames.get(name, (0, 0, 0))
        resources.stack_bytes, resources.spill_bytes = stack, stores + loads
        resources.advisories = [a for a in advisories if name in a] + [
            a for a in advisories if not any(other in a for other in found)
        ]
    return found
