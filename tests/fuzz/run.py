"""Drives the fuzz target: ``python tests/fuzz/run.py --seconds 60``; see README.md."""

import argparse
import ctypes
import faulthandler
import importlib.util
import os
import resource
import sys
import time
from pathlib import Path

import target
from choices import LONGEST, random_inputs, seeds

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("auto", "atheris", "random"), default="auto")
    parser.add_argument("--seconds", type=float, help="how long; else until --runs")
    parser.add_argument("--runs", type=int, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="where atheris keeps what it learnt")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("replay", nargs="*", type=Path, help="files to run again, and nothing else")
    options = parser.parse_args()
    faulthandler.enable()
    for file in options.replay:
        target.one_input(file.read_bytes())
    if options.replay:
        return
    if not target.SANITIZED:  # endless arrays must not take the machine with them
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    options.findings.mkdir(parents=True, exist_ok=True)
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if importlib.util.find_spec("atheris") else "random"
        print(f"engine {engine}" + (": atheris is not installed" if engine == "random" else ""))
    {"atheris": by_atheris, "random": by_random}[engine](options)


def by_random(options):
    """Seeds, then random bytes. The input stands in a file before it is run, whatever happens."""
    current = options.findings / f"current-{os.getpid()}"
    began, count = time.monotonic(), 0
    with open(current, "w+b", buffering=0) as file:
        for inputs in seeds(), random_inputs(options.seed):
            for data in inputs:
                if options.runs is not None and count >= options.runs:
                    break
                if options.seconds is not None and time.monotonic() - began > options.seconds:
                    break
                os.pwrite(file.fileno(), data.ljust(LONGEST, b"\0"), 0)
                try:
                    target.one_input(data)
                except BaseException:
                    print(f"found by input {count}: {current}", flush=True)
                    raise
                count += 1
    current.unlink()
    report(count, time.monotonic() - began)


def report(count, seconds):
    print(f"{count} inputs in {seconds:.0f} s, nothing found")
    for what, n in sorted(target.seen.items()):
        print(f"  {n:8} {what}")


def by_atheris(options):
    """libFuzzer, led by what the module's own counters say where it was built with some."""
    import atheris

    corpus = options.corpus or options.findings / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(seeds()):
        (corpus / f"seed-{i}").write_bytes(data)
    arguments = [sys.argv[0], f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=8192"]
    arguments += [f"-artifact_prefix={options.findings}/", f"-seed={options.seed + 1}"]
    arguments += ["-print_final_stats=1"]
    if options.seconds is not None:
        arguments.append(f"-max_total_time={int(options.seconds)}")
    if options.runs is not None:
        arguments.append(f"-runs={options.runs}")
    atheris.Setup([*arguments, str(corpus)], target.one_input)
    lead()
    atheris.Fuzz()


def lead():
    """Shows libFuzzer, a part of atheris, the counters of fanano's own code (coverage.cpp)."""
    module = ctypes.CDLL(target._core.__file__)
    if not hasattr(module, "fanano_coverage"):
        print("fanano was built without counters: the search is led by Python's lines alone")
        return
    engine = ctypes.CDLL(importlib.import_module("atheris.core_with_libfuzzer").__file__)
    size = 1 << 14
    counters = ctypes.addressof((ctypes.c_uint8 * size).in_dll(module, "fanano_coverage"))
    # A place in the code for each counter, which must be there: its address stands for it.
    lead.places = (ctypes.c_uint64 * (2 * size))()
    lead.places[::2] = range(counters, counters + size)
    places = ctypes.addressof(lead.places)
    engine.__sanitizer_cov_8bit_counters_init(
        ctypes.c_void_p(counters), ctypes.c_void_p(counters + size)
    )
    engine.__sanitizer_cov_pcs_init(
        ctypes.c_void_p(places), ctypes.c_void_p(places + ctypes.sizeof(lead.places))
    )


if __name__ == "__main__":
    main()
