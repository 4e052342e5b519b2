"""What the static report knows of the machines: no nvcc."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cuda"))

from static_report import machines, sass


@pytest.mark.parametrize(
    ("machine", "threads", "registers", "shared", "blocks"),
    [
        ("sm_80", 128, 255, 32768, 2),  # 65536 / (256 x 128)
        ("sm_80", 128, 141, 24 << 10, 3),
        ("sm_80", 128, 32, 81 << 10, 2),  # 164 KiB, of which each block costs one more
        ("sm_80", 128, 32, 82 << 10, 1),
        ("sm_90", 128, 32, 82 << 10, 2),
        ("sm_90a", 1024, 16, 0, 2),  # 64 warps
        ("sm_90a", 32, 16, 0, 32),
        ("sm_90a", 384, 168, 100 << 10, 1),
        ("sm_90a", 1024, 255, 0, 0),  # cannot be launched
    ],
)
def test_blocks_of_a_multiprocessor(machine, threads, registers, shared, blocks):
    machine = machines.MACHINES[machine]
    assert machines.blocks_per_multiprocessor(machine, threads, registers, shared) == blocks


def test_what_memory_takes():
    def of(machine, *names):
        code = [sass.Instruction(name) for name in names]
        return machines.memory(machines.MACHINES[machine], code)

    mma = "HMMA.16816.F32"  # with 16 x 8 numbers: 256 bytes
    takes = 256 / (2039 / 1.41 / 108)
    assert of("sm_80", "FFMA") == 0
    assert of("sm_80", mma) == pytest.approx(100 * takes / 2)
    assert of("sm_80", mma, *["MUFU.EX2"] * 4) == pytest.approx(100 * takes / 8)
    assert of("sm_90a", mma, mma) == pytest.approx(100 * 512 * 1.83 * 132 / 3352 / (2 / 0.629))


def test_the_bound():
    def of(machine, *names):
        code = [sass.Instruction(name) for name in names]
        return machines.bound(machines.MACHINES[machine], code)

    mma = "HMMA.16816.F32"
    assert of("sm_80", mma) == (100, "tensor")
    assert of("sm_90a", mma) == (pytest.approx(62.9), "tensor")
    assert of("sm_80", mma, "MUFU.EX2", "MUFU.EX2") == (50, "mufu")  # 2 clocks of 4
    assert of("sm_80", mma, "LDSM.16.M88.4") == (50, "shared")
    assert of("sm_80", mma, *["NOP"] * 15) == (50, "issue")
    assert of("sm_80", "FFMA") == (100, "fp32")
    assert of("sm_90a", "DFMA", "FFMA", "FFMA") == (pytest.approx(200 / 3), "issue")
    assert of("sm_90a", "DFMA", "DADD") == (50, "fp64")
