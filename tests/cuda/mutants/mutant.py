"""What a mutant is, and words that many of them edit."""

from dataclasses import dataclass


@dataclass
class Mutant:
    what: tuple[str, str, str]  # source, its test, the instance that is compiled with it
    name: str
    old: str
    new: str = ""
    nth: int = 0  # of the places where old stands
    why_alive: str = ""  # a survivor that is known, and why


WAIT, SYNC, COMMIT = "ptx::cp_async_wait<0>();", "__syncthreads();", "ptx::cp_async_commit();"
