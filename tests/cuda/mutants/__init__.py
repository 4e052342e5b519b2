"""All mutants of the CUDA kernels: edits that their tests must notice (mutate.py)."""

from . import backward, decode, flash, plain
from .mutant import Mutant

MUTANTS: list[Mutant] = [*flash.MUTANTS, *decode.MUTANTS, *backward.MUTANTS, *plain.MUTANTS]
