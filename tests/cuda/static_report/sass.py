"""Instructions, as nvdisasm prints them, and the pipe that each occupies."""

import re
from dataclasses import dataclass, field

# By the name's first part. What is in none of these only takes its turn to be issued.
PIPES = {
    "tensor": "HMMA HGMMA IMMA IGMMA QGMMA DMMA BMMA",
    "mufu": "MUFU",
    "fp32": "FFMA FMUL FADD IMAD FSWZADD",
    "fp64": "DFMA DMUL DADD DSETP",
    "fp16": "HFMA2 HADD2 HMUL2 HSETP2",
    "alu": """FMNMX FSEL FSETP FCHK IADD3 IADD LOP3 LEA SHF ISETP SEL PRMT F2FP PLOP3 IMNMX VIMNMX
              VIADD VIADDMNMX MOV BMSK IABS SGXT VOTE P2R R2P I2FP""",
    "convert": "F2F F2I I2F FRND FLO POPC BREV",
    "shuffle": "SHFL MATCH REDUX",
    "shared": "LDS STS LDSM STSM LDGSTS ATOMS",
    "global": "LDG STG LD ST RED ATOM ATOMG UTMALDG UTMASTG UBLKCP",
    "local": "LDL STL",
    "sync": "BAR WARPSYNC DEPBAR LDGDEPBAR BSSY BSYNC SYNCS WARPGROUP MEMBAR FENCE",
}
PIPE_OF = {name: pipe for pipe, names in PIPES.items() for name in names.split()}
MEMORY = ("LDG", "STG", "LDS", "STS", "LDGSTS", "LDSM", "LDL", "STL")

SECTION = re.compile(r"\s*\.section\s+([^\s,]+)")
LABEL = re.compile(r'"?([^\s":]+)"?:$')
INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z]\w*(?:\.\w+)*)(.*?);")
TARGET = re.compile(r"`\(([^)]+)\)")
BYTES = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+\.word\s+0x([0-9a-f]+)")
INSTRUCTION_BYTES = 16


@dataclass
class Instruction:
    name: str  # with its modifiers
    predicate: str = ""
    operands: str = ""

    @property
    def stem(self):
        return self.name.split(".")[0]

    @property
    def pipe(self):
        return PIPE_OF.get(self.stem, "other")

    @property
    def target(self):
        match = TARGET.search(self.operands)
        return match[1] if match else None

    @property
    def jumps(self):
        """A call of what is no function is a branch: ptxas leaves loops so."""
        return self.stem == "BRA" or (self.stem == "CALL" and (self.target or "").startswith(".L"))

    @property
    def conditional(self):
        """Whether a branch may be passed by: BRA has a predicate in front, in its operands, or
        asks whether the warp has parted."""
        before_target = self.operands.split("`")[0]
        return bool(self.predicate) or "P" in before_target or ".DIV" in self.name

    @property
    def multiplications(self):
        """Of a tensor instruction, for one warp."""
        if match := re.match(r"HGMMA\.64x(\d+)x(\d+)", self.name):  # four warps together
            return 16 * int(match[1]) * int(match[2])
        if match := re.match(r"HMMA\.(\d+)", self.name):
            return {"16816": 16 * 8 * 16, "1688": 16 * 8 * 8}.get(match[1])
        return None

    @property
    def bits(self):
        """The width of a memory access, for each lane."""
        if self.stem == "LDSM":
            return 32 * (int(self.name[-1]) if self.name[-2:] in (".2", ".4") else 1)
        if match := re.search(r"\.[US]?(8|16|64|128)(?:\.|$)", self.name):
            return int(match[1])
        return 32

    @property
    def wavefronts(self):
        """Cycles that shared memory takes for it, when no two lanes want one bank: 128 bytes each.
        Bytes that a copy leaves out are not subtracted."""
        return max(1, self.bits // 32) if self.pipe == "shared" else 0


@dataclass
class Kernel:
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # where in the list
    threads: int | None = None  # of a block, at most

    @property
    def code_bytes(self):
        return INSTRUCTION_BYTES * len(self.instructions)


def parse(text):
    """Kernels by their mangled names."""
    kernels = {}
    section, words = "", None
    for line in text.splitlines():
        if match := SECTION.match(line):
            section, words = match[1], None
        kind, _, name = section.partition("._Z")
        kernel = kernels.setdefault("_Z" + name, Kernel()) if name else None
        if kind == ".text" and kernel:
            if match := INSTRUCTION.match(line):
                kernel.instructions.append(Instruction(match[3], match[2] or "", match[4].strip()))
            elif match := LABEL.match(line):
                kernel.labels[match[1]] = len(kernel.instructions)
        elif kind == ".nv.info" and kernel:
            if "nvinfo :" in line:
                words = [] if line.endswith("EIATTR_MAX_THREADS") else None
            elif words is not None and (match := BYTES.match(line)):
                words.append(int(match[1], 16))
                if len(words) == 3:
                    kernel.threads = words[0] * words[1] * words[2]
    return {name: kernel for name, kernel in kernels.items() if kernel.instructions}
