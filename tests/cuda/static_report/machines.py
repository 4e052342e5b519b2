"""What a multiprocessor has room for, and how fast its pipes are.

Room: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
Rates: its table "Throughput of Native Arithmetic Instructions", in results per clock and
multiprocessor, and for the tensor cores the whitepapers: A100 1024 dense 16-bit multiplications
per clock (312 TFLOP/s, 108 multiprocessors, 1.41 GHz), H100 2048 (989 TFLOP/s, 132, 1.83 GHz). What
Hopper's tensor cores do of that when they are given mma.sync is 62.9 % (measured in arXiv
2402.13499). Shared memory: 128 bytes per clock. Memory, from the datasheets: 2039 GB/s of
an A100 SXM of 80 GB, 3352 of an H100 SXM.
"""

from dataclasses import dataclass

WARP = 32
RESERVED_SHARED = 1024  # of each block, by the driver


@dataclass(frozen=True)
class Machine:
    shared: int  # bytes of a multiprocessor
    tensor: int  # multiplications per clock
    mma_sync: float  # what part of that HMMA reaches
    memory: float  # bytes per clock: its share of the device's
    results: dict[str, int]  # of each pipe, per clock
    registers: int = 65536
    warps: int = 64
    blocks: int = 32
    issue: int = 4  # instructions per clock: one for each quarter
    wavefronts: int = 1  # of shared memory, per clock


SM80 = Machine(
    164 << 10, 1024, 1.0, 2039 / 1.41 / 108,
    {"fp32": 64, "fp64": 32, "fp16": 256, "alu": 64, "mufu": 16, "convert": 16, "shuffle": 32},
)  # fmt: skip
SM90 = Machine(
    228 << 10, 2048, 0.629, 3352 / 1.83 / 132,
    {"fp32": 128, "fp64": 64, "fp16": 256, "alu": 64, "mufu": 16, "convert": 64, "shuffle": 32},
)  # fmt: skip
MACHINES = {"sm_80": SM80, "sm_90": SM90, "sm_90a": SM90}


def round_up(n, unit):
    return -(-n // unit) * unit


def blocks_per_multiprocessor(machine, threads, registers, shared):
    """Registers are handed out to warps, 256 at a time, in each quarter of the multiprocessor."""
    warps = -(-threads // WARP)
    by_quarter = machine.registers // 4 // round_up(max(registers, 1) * WARP, 256)
    return min(
        machine.blocks,
        machine.warps // warps,
        4 * by_quarter // warps,
        machine.shared // round_up(shared + RESERVED_SHARED, 128),
    )


def clocks(machine, instructions):
    """What each pipe of a multiprocessor takes for these instructions of one warp."""
    taken = {"issue": len(instructions) / machine.issue}
    for i in instructions:
        if i.pipe == "tensor":
            share = machine.mma_sync if i.stem == "HMMA" else 1
            cost = (i.multiplications or 0) / machine.tensor / share
        elif i.pipe == "shared":
            cost = i.wavefronts / machine.wavefronts
        elif i.pipe in machine.results:
            cost = WARP / machine.results[i.pipe]
        else:
            continue
        taken[i.pipe] = taken.get(i.pipe, 0) + cost
    return taken


def memory(machine, instructions):
    """What memory takes for the second operands (keys, values) of these tensor instructions of one
    warp, in percent of their slowest pipe. Where each is read for 16 rows alone, as in decode, what
    is over 100 is bound by memory. The copies cannot be counted: a warp may have none."""
    read = sum(2 * (i.multiplications or 0) // 16 for i in instructions if i.stem == "HMMA")
    return 100 * read / machine.memory / max(clocks(machine, instructions).values())


def bound(machine, instructions):
    """In percent of the peak of the tensor cores, or of float32 or float64 products where there are
    no tensor instructions: what is reached when everything overlaps and nothing waits. With it the
    pipe that sets it. What wgmma reads of shared memory is not counted."""
    taken = clocks(machine, instructions)
    if "tensor" in taken:
        peak = sum(i.multiplications or 0 for i in instructions) / machine.tensor
    else:
        products = [[i for i in instructions if i.stem == stem] for stem in ("FFMA", "DFMA")]
        peak = max(clocks(machine, p).get(p[0].pipe, 0) for p in products if p)
    limit = max(taken, key=lambda pipe: taken[pipe])
    return 100 * peak / taken[limit], limit
