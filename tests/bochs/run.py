"""Test programs on a processor that this machine is not, in Bochs (README.md says how it is made).

    cmake --preset static && cmake --build --preset static
    python tests/bochs/run.py path/to/bochs build/static/tests/cases_*_test

runs each program once for each instruction set named by --isa, prints what they print, and exits
with 1 unless all have run and none has failed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

# Amounts to Intel's Sapphire Rapids; what no program here uses is left out.
MACHINE = """
cpu: model=sapphire_rapids, count=1, ips=100000000, exclude_features="amx,amx_int8,amx_bf16"
memory: guest=1024, host=1024
romimage: file={share}/bochs/BIOS-bochs-latest
vgaromimage: file={share}/vgabios/vgabios.bin
ata0-master: type=cdrom, path={image}, status=inserted
boot: cdrom
port_e9_hack: enabled=1
display_library: nogui
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
clock: sync=none
speaker: enabled=0
"""


def programs_source(programs: list[Path], isas: list[str]) -> str:
    """The table of system.c, in assembler, with the programs themselves."""
    files, rows = "", ""
    for i, program in enumerate(programs):
        files += f'.balign 16\nfile{i}: .incbin "{program.resolve()}"\nname{i}: .asciz '
        files += f'"{program.name}"\n'
        rows += "".join(f".quad name{i}, environment{j}, file{i}\n" for j in range(len(isas)))
    for j, isa in enumerate(isas):
        files += f'environment{j}: .asciz "FANANO_ISA={isa}"\n'
    return f"{files}.balign 8\n.globl programs\nprograms:\n{rows}.quad 0, 0, 0\n"


def make_image(folder: Path, source: str, syslinux: Path) -> Path:
    """A disc that the BIOS starts and that starts start.S."""
    (folder / "programs.s").write_text(source)
    disc = folder / "disc"
    disc.mkdir()

    def run(*command: object) -> None:
        subprocess.run([str(word) for word in command], check=True, cwd=folder)

    options = ["-O1", "-std=gnu17", "-Wall", "-Wextra", "-ffreestanding", "-fno-builtin"]
    options += ["-fno-pic", "-fno-pie", "-fno-stack-protector"]
    options += ["-mno-red-zone", "-mgeneral-regs-only"]
    run("gcc", "-c", "-I", folder, HERE / "start.S")
    run("gcc", "-c", *options, HERE / "system.c")
    run("ld", "-no-pie", "--no-warn-rwx-segments", "-T", HERE / "link.ld", "-o", "image.elf",
        "start.o", "system.o")  # fmt: skip
    run("objcopy", "-O", "binary", "image.elf", disc / "image")
    files = ("ISOLINUX/isolinux.bin", *(f"syslinux/modules/bios/{name}.c32" for name in
             ("ldlinux", "libcom32", "mboot")))  # fmt: skip
    for name in files:
        run("cp", syslinux / name, disc)
    (disc / "isolinux.cfg").write_text(
        "DEFAULT image\nLABEL image\n KERNEL mboot.c32\n APPEND image\n"
    )
    run("xorriso", "-as", "mkisofs", "-quiet", "-o", "disc.iso", "-b", "isolinux.bin", "-c", "cat",
        "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", disc)  # fmt: skip
    return folder / "disc.iso"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bochs", type=Path)
    parser.add_argument("programs", type=Path, nargs="+")
    parser.add_argument("--isa", nargs="+", default=["avx512bf16", "avx512"])
    parser.add_argument("--timeout", type=int, default=7200, help="in seconds")
    parser.add_argument("--share", type=Path, default=Path("/usr/share"), help="of the BIOS")
    parser.add_argument("--syslinux", type=Path, default=Path("/usr/lib"), help="of ISOLINUX")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = make_image(folder, programs_source(given.programs, given.isa), given.syslinux)
        machine = folder / "machine"
        machine.write_text(
            MACHINE.format(share=given.share, image=image, log=folder / "log").lstrip()
        )
        command = ["timeout", str(given.timeout), given.bochs, "-q", "-f", machine]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            print(line, end="", flush=True)
        process.wait()
    statuses = re.findall(r"^status (-?\d+)$", said, re.M)
    fine = "all have run\n" in said and len(statuses) == len(given.programs) * len(given.isa)
    return 0 if fine and set(statuses) == {"0"} else 1


if __name__ == "__main__":
    sys.exit(main())
