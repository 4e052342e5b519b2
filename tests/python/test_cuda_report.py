"""The static report of the CUDA kernels, on texts like those of ptxas and nvdisasm: no nvcc."""

import sys
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[1] / "cuda"
sys.path.insert(0, str(CUDA))

from static_report import build, figures, flow, ptxas, sass, thresholds  # noqa: E402

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async ... in function '_Z3onev'
ptxas info    : Compiling entry function '_Z3onev' for 'sm_90a'
ptxas info    : Function properties for _Z3onev
    24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 32768 bytes smem, 600 bytes cmem[0]
ptxas info    : Compiling entry function '_Z3twov' for 'sm_90a'
ptxas info    : Function properties for _Z3twov
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, 400 bytes cmem[0]
"""


def disassembly(body, name="_Z3onev", threads=128):
    """A kernel as nvdisasm prints it; of each line of the body, a label or an instruction."""
    text = f'\t.section\t.nv.info.{name},"",@"SHT_CUDA_INFO"\n'
    text += "\t//----- nvinfo : EIATTR_REGCOUNT\n        /*0000*/ \t.word\t0x00000007\n"
    if threads:
        text += "\t//----- nvinfo : EIATTR_MAX_THREADS\n\t.align\t\t4\n.L_63:\n"
        text += "        /*00d4*/ \t.byte\t0x04, 0x05\n"
        for n in (threads, 1, 1):
            text += f"        /*00d8*/ \t.word\t{n:#010x}\n"
    text += "\t//----- nvinfo : EIATTR_OTHER\n        /*00e0*/ \t.word\t0x00000009\n"
    text += f'\t.section\t.text.{name},"ax",@progbits\n\t.align\t128\n{name}:\n.text.{name}:\n'
    at = 0
    for line in body.strip().splitlines():
        if line.endswith(":"):
            text += line.strip() + "\n"
        else:
            predicate = line.split()[0] if line.strip().startswith("@") else ""
            rest = line.strip().removeprefix(predicate).strip()
            text += f"        /*{at:04x}*/ {predicate:>17} {rest} ;\n"
            at += 16
    return text


def kernel(body, **other):
    return next(iter(sass.parse(disassembly(body, **other)).values()))


LOOP = """
    MOV R1, c[0x0][0x28]
    @!P0 BRA `(.L_done)
.L_outer:
    LDG.E.64 R2, [R4]
.L_head:
    LDSM.16.M88.4 R8, [R3]
    LDSM.16.MT88.2 R8, [R3]
    @P1 BRA `(.L_whole)
    FSEL R5, R5, -INF , P1
    FSEL R6, R6, -INF , P1
    BRA P2, `(.L_cold)
.L_whole:
    HMMA.16816.F32.BF16 R4, R8, R6, R4
    HMMA.16816.F32.BF16 R4, R8, R6, R4
    MUFU.EX2 R5, R5
.L_inner:
    LDGSTS.E.BYPASS.LTC128B.128 [R7], [R4.64]
    @P3 BRA `(.L_inner)
    @P4 BRA `(.L_head)
    @P5 BRA `(.L_outer)
.L_done:
    STG.E.U16 [R4], R5
    STL [R1+0x4], R3  (*"SpillRefill"*)
    EXIT
.L_cold:
    CALL.REL.NOINC `($__internal_0_$slow)
    BRA `(.L_whole)
$__internal_0_$slow:
    FFMA R2, R2, R2, R2
    RET.REL.NODEC R12 `(_Z3onev)
.L_end:
    BRA `(.L_end)
"""


# ---- what the tools say --------------------------------------------------------------------------


def test_what_ptxas_says():
    found = ptxas.parse(LOG, "sm_90a")
    assert set(found) == {"_Z3onev", "_Z3twov"}
    one, two = found["_Z3onev"], found["_Z3twov"]
    assert (one.registers, one.stack_bytes, one.spill_bytes) == (255, 24, 36)
    assert one.static_shared == 32768
    assert (two.registers, two.stack_bytes, two.spill_bytes, two.static_shared) == (40, 0, 0, 0)
    assert ["C7514" in words for words in one.advisories] == [True]
    assert two.advisories == []


def test_what_ptxas_says_of_two_machines():
    """One after the other, in one log."""
    first = LOG.replace("sm_90a", "sm_80").replace("255 registers", "168 registers")
    for log in (first + LOG, LOG + first):
        found = {machine: ptxas.parse(log, machine) for machine in ("sm_80", "sm_90a")}
        assert [f["_Z3onev"].registers for f in found.values()] == [168, 255]
        assert [set(f) for f in found.values()] == [{"_Z3onev", "_Z3twov"}] * 2
    assert ptxas.parse(LOG, "sm_80") == {}


def test_an_advisory_that_names_no_kernel_is_everybodys():
    found = ptxas.parse("ptxas info : (C7508) setmaxnreg ignored to maintain ...\n" + LOG, "sm_90a")
    assert [len(found[name].advisories) for name in ("_Z3onev", "_Z3twov")] == [2, 1]


def test_instructions():
    parsed = kernel(LOOP)
    assert parsed.threads == 128
    assert parsed.code_bytes == 16 * len(parsed.instructions) == 16 * 24
    first, branch = parsed.instructions[:2]
    assert (first.name, first.operands, first.pipe) == ("MOV", "R1, c[0x0][0x28]", "alu")
    assert (branch.predicate, branch.target, branch.conditional) == ("!P0", ".L_done", True)
    widths = {
        "LDG.E.64": 64, "LDG.E": 32, "STG.E.U16": 16, "STG.E.EF.128": 128, "LDS.U.128": 128,
        "LDSM.16.M88.4": 128, "LDSM.16.MT88.2": 64, "LDSM.16.M88": 32, "LDG.E.U8.CONSTANT": 8,
        "LDGSTS.E.BYPASS.LTC128B.128": 128, "LDGSTS.E.LTC128B": 32,
        "LDGSTS.E.128SMTH": 32,
    }  # fmt: skip
    assert {name: sass.Instruction(name).bits for name in widths} == widths
    assert sass.Instruction("HMMA.16816.F32").multiplications == 2048
    assert sass.Instruction("HGMMA.64x128x16.F32.BF16").multiplications == 64 * 128 * 16 // 4
    assert sass.Instruction("HMMA.9999.F32").multiplications is None


def test_two_kernels_in_one_text():
    text = disassembly("EXIT", "_Z3onev", 64) + disassembly("NOP\nEXIT", "_Z3twov", None)
    found = sass.parse(text)
    assert [(k.threads, len(k.instructions)) for k in found.values()] == [(64, 1), (None, 2)]


def test_names_for_readers():
    assert build.short("void fanano::cuda::f<fanano::bfloat16, 64, false>(fanano::P, int*)") == (
        "f<bfloat16, 64, false>"
    )
    assert build.short("void a::f<(b::Kind)1>(int)") == "f<(Kind)1>"
    assert build.short("a::(anonymous namespace)::g(int)") == "g"
    assert build.short("_Zsomething") == "_Zsomething"


# ---- loops ---------------------------------------------------------------------------------------


def is_tensor(i):
    return i.pipe == "tensor"


def test_where_blocks_lead_to():
    body = """
    @!UP0 BRA `(.L_a)
    @P0 EXIT
    BRA.DIV UR4, `(.L_b)
    BRA P1, `(.L_a)
    @P0 CALL.REL.NOINC `(.L_b)
    BRA `(.L_c)
.L_a:
    CALL.REL.NOINC `($__internal_0_$slow)
    NOP
.L_b:
    @P0 RET.REL.NODEC R2 `(_Z3onev)
    EXIT
.L_c:
    BRA `(.L_a)
.L_end:"""
    graph = flow.blocks(kernel(body))
    assert [sorted(b.next) for b in graph] == [
        [1, 6], [2], [3, 7], [4, 6], [5, 7], [9], [7], [8], [], [6]
    ]  # fmt: skip
    assert flow.loops(graph) == []  # .L_a is reached in other ways, too


def test_the_main_loop_is_the_innermost_with_the_tensor_instructions():
    """And what a pass of it needs leaves the masked tile out, and has inner loops once."""
    graph = flow.blocks(kernel(LOOP))
    loops = flow.loops(graph)
    assert len(loops) == 3  # what the cold block jumps back to is no loop's head
    loop = flow.main_loop(graph, is_tensor)
    assert graph[loop.head].instructions[0].name == "LDSM.16.M88.4"
    inside = [i.stem for n in sorted(loop.body) for i in graph[n].instructions]
    assert [inside.count(name) for name in ("FSEL", "LDG", "CALL")] == [2, 0, 1]
    least = [i.stem for i in flow.lightest_pass(graph, loop, is_tensor)]
    assert least == ["LDSM", "LDSM", "BRA", "HMMA", "HMMA", "MUFU", "LDGSTS", "BRA", "BRA"]


def test_a_pass_has_work():
    graph = flow.blocks(
        kernel(""".L_a:
    @P0 BRA `(.L_b)
    HMMA.16816.F32 R0, R0, R0, R0
.L_b:
    @P1 BRA `(.L_a)
    EXIT""")
    )
    loop = flow.main_loop(graph, is_tensor)
    assert "HMMA" in [i.stem for i in flow.lightest_pass(graph, loop, is_tensor)]


def test_a_pass_leaves_rare_cases_out():
    """Which have more work in all, and more of everything else."""
    graph = flow.blocks(
        kernel(""".L_a:
    HMMA.16816.F32 R0, R0, R0, R0
    HMMA.16816.F32 R0, R0, R0, R0
    @P0 BRA `(.L_b)
    HMMA.16816.F32 R0, R0, R0, R0
    MUFU.EX2 R0, R0
    MUFU.EX2 R0, R0
.L_b:
    @P1 BRA `(.L_a)
    EXIT""")
    )
    loop = flow.main_loop(graph, is_tensor)
    assert [i.stem for i in flow.lightest_pass(graph, loop, is_tensor)] == [
        "HMMA", "HMMA", "BRA", "BRA"
    ]  # fmt: skip


def test_a_kernel_without_loops():
    graph = flow.blocks(kernel("HMMA.16816.F32 R0, R0, R0, R0\nEXIT"))
    assert flow.loops(graph) == []
    assert flow.main_loop(graph, is_tensor) is None


# ---- limits --------------------------------------------------------------------------------------

ENOUGH = {"every": {"at_most": {"spill_bytes": 0}}, "family": [{"name": "f", "kernels": ["one*"]}]}


def of_one(launches=None, body=LOOP, **other):
    resources = ptxas.parse(LOG, "sm_90a")["_Z3onev"]
    found = figures.of("_Z3onev", "sm_90a", resources, kernel(body, **other), launches)
    found.kernel = "one<float>"
    return found


def judged(limits, found=None, **family):
    limits = {**limits, "family": [{"name": "f", "kernels": ["one*"], **family}]}
    return thresholds.judge(limits, [found or of_one()])


def test_figures_of_a_kernel():
    found = of_one()
    expected = {
        "registers": 255, "spill_bytes": 36, "stack_bytes": 24, "shared": 32768, "blocks": 2,
        "warps": 8, "advisories": 1, "tensor": 2, "local": 1, "work": 2, "others": 3.5, "pass": 9,
        "loop": 14, "loop_mufu": 1, "loop_shared": 3, "loop_alu": 0, "LDG.64": 1, "LDSM.128": 1,
        "LDSM.64": 1, "LDGSTS.128": 1, "STG.16": 1, "STG.128": 0,
        "memory": 100 * 512 / (3352 / 1.83 / 132) / 10,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found.limit == "shared"
    assert of_one(body="EXIT")["bound"] is None


def test_a_limit_that_is_crossed_is_said_in_words():
    assert judged(ENOUGH)[0] == "one<float> on sm_90a: spill_bytes is 36, at most 0 is allowed"
    none = {"every": {}}
    words = judged(
        none, at_least={"blocks": 3, "STG.128": 1, "warps": 8}, at_most={"registers": 255}
    )
    assert words[1:] == [
        "one<float> on sm_90a: blocks is 2, at least 3 is wanted",
        "one<float> on sm_90a: STG.128 is 0, at least 1 is wanted",
    ]
    assert "C7514" in words[0]


def test_a_limit_of_one_machine_is_not_anothers():
    words = judged({"every": {}}, at_most={"registers": {"sm_80": 1}})
    assert not [w for w in words if "registers" in w]
    assert [w for w in judged({"every": {}}, at_most={"registers": {"sm_90a": 1}}) if "255" in w]


def test_a_kernel_without_limits_is_wrong():
    limits = {"every": {}, "family": [{"name": "f", "kernels": ["two*"]}]}
    assert "no family of the thresholds has it" in thresholds.judge(limits, [of_one()])[-1]


def test_the_first_family_counts():
    limits = {
        "every": {},
        "family": [
            {"name": "a", "kernels": ["two", "one*"]},
            {"name": "b", "kernels": ["*"], "at_most": {"registers": 1}},
        ],
    }
    assert not [w for w in thresholds.judge(limits, [of_one()]) if "registers" in w]


def test_what_is_not_known_is_wrong():
    assert "no test launches it" in judged({"every": {}}, of_one({}), at_most={"shared": 1e9})[-1]
    found = of_one({"_Z3onev": 1000})
    assert (found["shared"], found["blocks"]) == (33768, 2)
    assert of_one({"_Z3onev": 180000})["blocks"] == 1
    nobody = of_one(threads=None)
    assert "no __launch_bounds__" in judged({"every": {}}, nobody, at_least={"threads": 32})[-1]
    assert "no such loop" in judged({"every": {}}, of_one(body="EXIT"), at_least={"bound": 1})[-1]
    assert "no figure" in judged({"every": {}}, at_most={"colours": 1})[-1]


def test_the_committed_limits():
    limits = thresholds.read(CUDA / "thresholds.toml")
    zero = [n for n in limits["every"]["at_most"] if limits["every"]["at_most"][n] == 0]
    assert {"spill_bytes", "stack_bytes", "local", "advisories", "unknown_tensor"} <= set(zero)
    assert not [w for w in thresholds.judge(limits, [of_one()]) if "no figure" in w]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[every", "toml"),
        ("", "no \\[every\\]"),
        ("[every]\n", "no \\[every\\] or no \\[\\[family\\]\\]"),
        ("[every]\n[[family]]\nname = 'f'\n", "a list of kernels"),
        ("[every]\n[[family]]\nname = 'f'\nkernels = 'f*'\n", "a list of kernels"),
        ("[every]\n[[family]]\nname = 'f'\nkernels = ['f']\nmost = 1\n", "has most"),
        ("[every]\nat_mots = 1\n[[family]]\nname = 'f'\nkernels = ['f']\n", "has at_mots"),
    ],
)
def test_limits_that_make_no_sense(tmp_path, text, words):
    path = tmp_path / "limits.toml"
    path.write_text(text)
    with pytest.raises(thresholds.Malformed, match=words):
        thresholds.read(path)
    with pytest.raises(thresholds.Malformed, match="missing"):
        thresholds.read(tmp_path / "missing.toml")
